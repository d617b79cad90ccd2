"""The whole way from recorded episodes to a registered adapter: harvest, train, register with a card.

Every stage may be killed: the same call goes on from the last checkpoint. Nothing half made is ever registered.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.adapters.card import check_name, hash_episodes
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.errors import AdapterMismatchError, ConfigurationError, EmptyHarvestError
from cmat_graph.splits import assert_disjoint
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import FILES, Dataset, Example, Judged, Pair, Row, hash_task
from cmat_graph.tuning.harvest import harvest as make_dataset
from cmat_graph.tuning.machine import check_machine
from cmat_graph.tuning.settings import Objective, TrainSettings
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Task

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
"""Called with step, number of steps, and the step's loss."""
DATASET, EPISODES = "dataset", "episodes.txt"
MOST_EPISODES = 300
"""Ids of episodes that stand on a card; of more it keeps the number and the hash."""
ROWS: dict[Objective, type[Row]] = {"sft": Example, "dpo": Pair, "kto": Judged}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One distillation, once its dataset is there."""

    card: AdapterCard
    dataset: Dataset
    location: str
    settings: TrainSettings
    init: Path | None
    work: Path
    progress: Progress | None


def distill(
    traces: TraceStore | None,
    registry: AdapterRegistry,
    *,
    node: str | None = None,
    base: str = "nano",
    name: str | None = None,
    harvest: HarvestSettings = HarvestSettings(),
    settings: TrainSettings = TrainSettings(),
    dataset: str | Path | None = None,
    init: AdapterCard | None = None,
    held_out: Collection[Task] = (),
    paraphraser: Callable[[str], str] | None = None,
    progress: Progress | None = None,
) -> AdapterCard:
    """Train an adapter for a node from what was recorded, and register it.

    Killed, the same call goes on from the last checkpoint, which lies in the registry under `NODE/.NAME-work` until
    the adapter is there. Under torchrun all processes call it, with the same arguments.

    Args:
        traces: Where the episodes are; not needed with a dataset.
        registry: Where the adapter goes, with its dataset in `dataset/` and its card.
        node: The seat to train for; None takes the one that the dataset was made for, or else the harvest's.
        base: `nano`, a model folder, or a hub id.
        name: The adapter's name; by default the first digits of a hash of data, base and settings.
        harvest: Which rows are made of which episodes.
        settings: How to train.
        dataset: A dataset that was made before; then nothing is harvested.
        init: An adapter of the same method on the same base to go on from; None begins from the bare base.
        held_out: Tasks of an evaluation, whose episodes are left out whatever their split says; a dataset that was made
            before must not hold any.
        paraphraser: Words a task's text anew, for `augment=("paraphrase",)`; None goes by rules.
        progress: Called with step, steps and loss.

    Returns:
        The card of the new adapter.

    Raises:
        EmptyHarvestError: No recorded episode is worth training on.
        AdapterMismatchError: `init` is of another base or method.
        LeakError: The dataset holds a held-out task.
        ConfigurationError: Arguments that cannot work; the message names the fix.
        TrainingError: The loss is no number any more; the last good checkpoint is kept.

    Example:
        >>> from cmat_graph.traces import SQLTraceStore
        >>> card = distill(SQLTraceStore("sqlite:///t.db"), AdapterRegistry())  # doctest: +SKIP

    """
    if name is not None:
        check_name(name)
    node = node or (_node_of(Dataset(dataset)) if dataset else "") or harvest.node
    check_name(node)
    harvest = replace(harvest, node=node)
    location = resolve_base(base)
    base_hash = hash_base(location)
    check_machine(settings)
    check_init(init, base, base_hash, settings)
    start = time.monotonic()
    shelf = registry.root / node
    drawn = Path(dataset) if dataset else shelf / f".{name or _digest(asdict(harvest))}-dataset"

    def collect() -> str:
        if not dataset:
            if traces is None:
                raise ConfigurationError("there is nothing to train on: give traces, or a dataset made before")
            make_dataset(traces, drawn, settings=harvest, held_out=held_out, paraphraser=paraphraser)
        return str(drawn)

    found = Dataset(_first(collect))
    if dataset and held_out:
        assert_disjoint(_taught(found), {name for task in held_out for name in (task.id, hash_task(task.prompt))})
    if not found.count(ROWS[settings.objective]):
        told = _nothing(found, node, settings.objective)
        if not dataset:
            shutil.rmtree(drawn, ignore_errors=True)
        raise EmptyHarvestError(told)
    if settings.objective == "kto":
        _check_kinds(found)
    origin = {"data": found.hash, "base": base_hash or base, "init": init.key if init else "", **asdict(settings)}
    card = AdapterCard(
        name=name or _digest(origin),
        node=node,
        base=base,
        base_hash=base_hash,
        method=settings.method,
        init=init.key if init else "",
        dataset_hash=found.hash,
        harvest=found.manifest.get("settings", asdict(harvest)),
        settings=asdict(settings),
    )
    work = shelf / f".{card.name}-work"
    plan = _Plan(
        card=card,
        dataset=found,
        location=location,
        settings=settings,
        init=Path(init.folder) if init else None,
        work=work,
        progress=progress,
    )
    if _rank():
        _train(plan, work / f"process-{_rank()}")
    else:
        with _alone(shelf / f".{card.name}.lock", card.id):
            registry.add(card, lambda folder: _make(plan, folder, start))
            leftovers = shelf.glob(f".{card.name}-{'[0-9a-f]' * 8}")  # of processes that were killed while they saved
            for folder in (work, *([] if dataset else [drawn]), *leftovers):
                shutil.rmtree(folder, ignore_errors=True)
    return _first(lambda: registry.get(card.id))


@contextmanager
def _alone(file: Path, name: str) -> Iterator[None]:
    """Hold a file while an adapter is made: two at once would take each other's checkpoints away."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process gives it back
        except OSError as exc:
            raise ConfigurationError(f"another process trains {name}; wait for it, or give another --name") from exc
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _node_of(dataset: Dataset) -> str:
    """Return the node that a dataset was made for; empty where it does not tell."""
    settings = dataset.manifest.get("settings") or {}
    return str(dataset.manifest.get("node") or settings.get("node") or "")


def tasks_of(card: AdapterCard) -> set[str]:
    """Return ids and text hashes of the tasks that an adapter learned from, and those that it went on from.

    Of adapters that lie without their dataset, none.
    """
    if not card.folder:
        return set()
    line = AdapterRegistry(Path(card.folder).parent.parent).lineage(card)
    folders = [folder for each in line if (folder := Path(each.folder, DATASET)).is_dir()]
    return {name for folder in folders for name in _taught(Dataset(folder))}


def _taught(dataset: Dataset) -> set[str]:
    """Return ids and text hashes of the tasks that a dataset's training rows came from."""
    origins = [row.origin for row in _rows(dataset, "train")]
    return {origin.task_id for origin in origins} | {origin.task_hash for origin in origins if origin.task_hash}


def _make(plan: _Plan, folder: Path, start: float) -> AdapterCard:
    """Fill an adapter's folder; return its card."""
    shutil.copytree(plan.dataset.folder, folder / DATASET)
    episodes = _episodes(folder / DATASET)
    trained = _train(plan, folder)
    return replace(
        plan.card,
        template_hash=_hash_template(plan.location),
        examples=trained.examples,
        tokens=trained.tokens,
        episodes=episodes if len(episodes) <= MOST_EPISODES else [],
        episode_count=len(episodes),
        episodes_hash=hash_episodes(episodes),
        counts={**plan.dataset.manifest.get("counts", {}), **trained.counts},
        loss=trained.loss,
        validation_loss=trained.eval_loss,
        versions=trained.versions,
        seconds=round(time.monotonic() - start, 1),
    )


def _train(plan: _Plan, target: Path) -> Any:
    train = import_module("cmat_graph.tuning.train").train  # torch, transformers, peft and trl live there
    return train(
        plan.dataset,
        plan.location,
        target,
        settings=plan.settings,
        work=plan.work,
        init=plan.init,
        progress=plan.progress,
    )


def check_init(init: AdapterCard | None, base: str, base_hash: str, settings: TrainSettings) -> None:
    """Refuse an adapter that a training cannot go on from; warn where the base has another chat template by now.

    Raises:
        AdapterMismatchError: It is of another base or method.

    """
    if init is None:
        return
    if (init.base_hash or init.base) != (base_hash if init.base_hash else base):
        raise AdapterMismatchError(
            f"{init.id} was trained on {init.base}, not on {base}; begin from an adapter of {base}"
        )
    if init.method != settings.method:
        raise AdapterMismatchError(
            f"{init.id} is {init.method}, and {settings.method} cannot go on from it; train with --method {init.method}"
        )
    if init.template_hash and not _rank() and init.template_hash != _hash_template(resolve_base(base)):
        logger.warning(
            "%s was trained with another chat template than %s has now; the rows are rendered by the one it has now",
            init.id,
            base,
        )


def _check_kinds(dataset: Dataset) -> None:
    """Refuse judged replies that are all good or all bad: KTO learns from the difference."""
    kinds: set[bool] = set()
    for row in dataset.judged("train"):
        kinds.add(row.good)
        if len(kinds) > 1:
            return
    raise EmptyHarvestError(
        f"kto needs good and bad replies, and all {dataset.count(Judged)} are {'good' if True in kinds else 'bad'}; "
        "record episodes of both kinds, or train with --objective sft"
    )


def _nothing(dataset: Dataset, node: str, objective: Objective) -> str:
    counts = dataset.manifest.get("counts", {})
    told = "; ".join(f"{reason}: {count}" for reason, count in counts.items() if count) or "no rows at all"
    other = [word for word, row in ROWS.items() if dataset.count(row)]
    fix = f"train with --objective {other[0]}" if other else "record solved and failed episodes first"
    return f"nothing to train {node!r} on with {objective} ({told}); {fix}"


def _rows(dataset: Dataset, part: str) -> Iterator[Row]:
    for row in FILES:
        yield from dataset._read(row, part)  # type: ignore[type-var,arg-type]


def _episodes(folder: Path) -> list[str]:
    """Return the ids of the episodes that a dataset's rows came from; write them down where the harvest did not."""
    file = folder / EPISODES
    if not file.is_file():
        found = {each for row in _rows(Dataset(folder), "train") for each in row.origin.episodes}
        file.write_text("".join(f"{each}\n" for each in sorted(found)), encoding="utf-8")
    return sorted(file.read_text(encoding="utf-8").splitlines())


def _hash_template(location: str) -> str:
    """Hash the chat template by which prompts of this base are rendered."""
    tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(location)
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _rank() -> int:
    """Return this process's number under torchrun; 0 for the first or only one."""
    return int(os.environ.get("RANK", "0"))


def _first(do: Callable[[], T]) -> T:
    """Let the first process do something, and give all of them what came of it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return do()
    result: T = import_module("cmat_graph.tuning.train.processes").first(do)
    return result
