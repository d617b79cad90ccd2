"""A harvest from beginning to end, and a folder that is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmat_graph.errors import ConfigurationError
from cmat_graph.splits import assert_disjoint
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import MANIFEST, Dataset, hash_task
from cmat_graph.tuning.harvest.augment import augment
from cmat_graph.tuning.harvest.collect import Found, collect
from cmat_graph.tuning.harvest.distil import choose
from cmat_graph.tuning.harvest.general import add_general
from cmat_graph.tuning.harvest.leaks import Guard, check_split
from cmat_graph.tuning.harvest.manifest import Files, example_rows
from cmat_graph.tuning.harvest.mix import weigh
from cmat_graph.tuning.harvest.pairs import Choice, judged_row, pair_row, prefer
from cmat_graph.tuning.harvest.paraphrase import Paraphraser
from cmat_graph.tuning.harvest.parts import Parts, check_enough
from cmat_graph.tuning.harvest.spool import Spool
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Task

Progress = Callable[[int, str], None]
"""Called with how many episodes were read, and the stage."""
SPOOL = ".spool"


def harvest(
    traces: TraceStore,
    folder: str | Path,
    *,
    settings: HarvestSettings = HarvestSettings(),
    held_out: Collection[Task] = (),
    paraphraser: Paraphraser | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Make a dataset of recorded episodes.

    Five stages, each with its counts in the manifest: collect, filter, distil (choose), augment, mix. The same traces
    and settings make the same bytes.

    Args:
        traces: Where the episodes are; of any graph.
        folder: Where the dataset goes. It is written aside and renamed; a dataset that was there is replaced.
        settings: The rules.
        held_out: Tasks that the result is measured on: nothing of them, by id or by text, is taken.
        paraphraser: A model's way to word a task anew, for the augmentation `paraphrase`; else rules do it.
        progress: Called while episodes are read.

    Raises:
        LeakError: The split is an evaluation's.
        EmptyHarvestError: Nothing is worth training on; the message counts why.
        ConfigurationError: The folder holds something else.
        OSError: The disk is full.

    Example:
        >>> from cmat_graph.traces.sql import SQLTraceStore
        >>> harvest(SQLTraceStore("sqlite://"), "dataset/")
        Traceback (most recent call last):
        ...
        cmat_graph.errors.EmptyHarvestError: nothing to train 'assistant' on in split 'train' (no episodes at all); ...

    """
    check_split(settings.split)
    guard, tally = Guard(held_out), Tally()
    with aside(Path(folder)) as place:
        with Spool(place / SPOOL) as spool:
            found = collect(traces, spool, settings=settings, guard=guard, tally=tally, progress=progress)
            tally.gave("filter", "rows", len(found.candidates))
            parts = _choose(found, settings, tally)
            parts.train += augment(parts.train, found, settings, tally, guard, paraphraser)
            if settings.eta < 1:
                _mix_in(parts, found, settings, tally, guard)
            weigh(parts.train, settings)
            tally.gave("mix", "examples", len(parts.train))
            check_enough(parts, found, settings, tally)
            files = Files(place)
            _write(files, parts, found)
        (place / SPOOL).unlink()
        assert_disjoint(files.tasks["train"], files.tasks["validation"])
        files.finish(_told(settings, held_out), tally)
    return Dataset(folder)


def _told(settings: HarvestSettings, held_out: Collection[Task]) -> dict[str, Any]:
    """Return the rules as the manifest keeps them: without a path, for the folder must travel."""
    told = asdict(settings) | {"general": Path(settings.general).name}
    if held_out:
        names = "\n".join(sorted(hash_task(task.prompt) for task in held_out))
        told["held_out"] = {"tasks": len(held_out), "sha256": hashlib.sha256(names.encode()).hexdigest()}
    return told


def _choose(found: Found, settings: HarvestSettings, tally: Tally) -> Parts:
    numbers = range(len(found.tasks.ids))
    validation = {number for number in numbers if found.tasks.is_validation(number, settings.validation_share)}
    chosen = choose(found.candidates, settings, tally)
    return Parts(
        train=[row for row in chosen if row.task not in validation],
        validation=[row for row in chosen if row.task in validation],
        preferences=prefer(found.deeds, settings, tally) if settings.eta else Choice([], []),
        tasks=validation,
    )


def _mix_in(parts: Parts, found: Found, settings: HarvestSettings, tally: Tally, guard: Guard) -> None:
    """Add the general rows; one whose text is an agent's task goes to the part of that task."""
    known = len(found.tasks.ids)
    general = add_general(found, settings, tally, guard, agent_loss=sum(row.loss for row in parts.train))
    new = {row.task for row in general if row.task >= known}
    parts.tasks |= {number for number in new if found.tasks.is_validation(number, settings.validation_share)}
    if settings.eta == 0:
        tally.left("mix", "rows", "eta is 0", len(parts.train))
        parts.train, parts.validation = [], []
    parts.train += [row for row in general if row.task not in parts.tasks]
    parts.validation += [row for row in general if row.task in parts.tasks]


def _write(files: Files, parts: Parts, found: Found) -> None:
    deeds, spool = found.deeds, found.spool
    for part, rows in (("train", parts.train), ("validation", parts.validation)):
        files.write("sft", part, example_rows(rows, spool))
        pairs = [pair for pair in parts.preferences.pairs if parts.of(deeds[pair.rejected].task) == part]
        files.write("pairs", part, (pair_row(pair, deeds, spool) for pair in pairs))
        judged = [number for number in parts.preferences.judged if parts.of(deeds[number].task) == part]
        files.write("judged", part, (judged_row(number, deeds, spool) for number in judged))


@contextmanager
def aside(folder: Path, *, known: str = MANIFEST) -> Iterator[Path]:
    """Make a folder beside the one that is wanted; put it in its place when all went well.

    Args:
        folder: What is wanted; one that is there is replaced if it holds the file `known`, or nothing.
        known: By which a folder is known to be ours.

    Raises:
        ConfigurationError: The folder holds something else.
        OSError: The disk is full, or another process wrote the folder at the same time.

    """
    if folder.name in ("", "..") or folder.resolve() == Path.cwd():
        raise ConfigurationError(f"{folder} cannot be made anew; name a folder for the dataset, such as dataset")
    if folder.exists() and not (folder / known).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} holds something else than a dataset; choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    place = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    lock, old = place.with_name(f"{place.name}.lock"), place.with_name(f"{place.name}-old")
    try:
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # a killed process gives it back, and the next harvest clears up
            place.mkdir()
            yield place
            if folder.exists():
                folder.rename(old)
            place.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as exc:
        if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OSError(exc.errno, f"another harvest wrote {folder} at the same time; that one is kept") from exc
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(exc.errno, f"cannot write the dataset {folder}: the disk is full; free some space") from exc
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove what harvests that were killed left beside a folder; a living one holds its lock."""
    name = re.compile(rf"\.{re.escape(folder.name)}-[0-9a-f]{{8}}\.lock")
    for lock in [file for file in folder.parent.iterdir() if name.fullmatch(file.name)]:
        place = lock.with_suffix("")
        old = place.with_name(f"{place.name}-old")
        with suppress(OSError), lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if old.exists() and not folder.exists():
                old.rename(folder)  # killed between the two renamings
            for left in (place, old):
                shutil.rmtree(left, ignore_errors=True)
            lock.unlink(missing_ok=True)
