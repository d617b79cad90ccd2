"""Write exercises as a dataset that `distill` trains a checker on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cmat_graph
from cmat_graph.drills.asking import answer_of, ask_checker
from cmat_graph.drills.drill import Drill
from cmat_graph.errors import EmptyHarvestError, LeakError
from cmat_graph.splits import TRAINED_ON, VALIDATION_SHARE, is_validation
from cmat_graph.tuning.dataset import FILES, MANIFEST, Dataset, Example, Origin, hash_files, hash_row, hash_task, to_row


def to_example(drill: Drill, *, weight: float = 1.0) -> Example:
    """Return an exercise as a row: the checker's prompt, and its right reply, which carries the loss."""
    asked: list[Any] = list(ask_checker(drill))
    told: Any = {"role": "assistant", "content": answer_of(drill), "weight": weight}
    origin = Origin(
        task_id=drill.task.id, task_hash=hash_task(drill.task.prompt), env=drill.env, node="checker", augmented="flaw"
    )
    return Example(messages=[*asked, told], kind="verdict" if drill.right else "correction", origin=origin)


def write_drills(
    drills: Iterable[Drill],
    folder: str | os.PathLike[str],
    *,
    correction_weight: float = 1.0,
    validation_share: float = VALIDATION_SHARE,
    settings: dict[str, Any] | None = None,
) -> Dataset:
    """Write exercises as a dataset folder, train and validation apart by task.

    Args:
        drills: Of training tasks only.
        folder: Made anew: written aside, then renamed.
        correction_weight: What a broken action's row weighs against a right one's (lambda of formula F12: the
            verdict and the mended action are one reply). Both kinds of verdict weigh alike altogether, then.
        validation_share: Share of tasks that are kept to choose by.
        settings: How they were made, for the manifest.

    Raises:
        LeakError: A task is of an evaluation split.
        EmptyHarvestError: There are none, or they are all right, or all broken.

    """
    target = Path(folder)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        examples = _gather(drills, validation_share)
        manifest = _write(aside, examples, correction_weight)
        manifest["settings"] = settings or {}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if target.exists():
            Dataset(target)  # replaces a dataset, never another folder of yours
            shutil.rmtree(target)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Dataset(target)


Parted = list[tuple[str, Drill]]


def _gather(drills: Iterable[Drill], share: float) -> Parted:
    parted: Parted = []
    texts: dict[str, str] = {}
    for drill in drills:
        if drill.task.split not in TRAINED_ON:
            raise LeakError(
                f"task {drill.task.id!r} is of the split {drill.task.split!r}, which is for evaluation; "
                f"make exercises of training tasks: --split {TRAINED_ON[0]}"
            )
        first = texts.setdefault(hash_task(drill.task.prompt), drill.task.id)  # one text under two ids goes to one part
        parted.append(("validation" if is_validation(first, share) else "train", drill))
    kinds = {drill.right for _, drill in parted}
    if kinds != {True, False}:
        lacking = "broken" if True in kinds else "right"
        raise EmptyHarvestError(
            f"a checker learns nothing from {len(parted)} exercises without any {lacking} action; "
            "give tasks with gold statements, such as: cmat-graph flaws --env database"
        )
    return parted


def _write(folder: Path, parted: Parted, correction_weight: float) -> dict[str, Any]:
    flawed = sum(not drill.right for part, drill in parted if part == "train")
    right = sum(drill.right for part, drill in parted if part == "train")
    even = flawed / right if flawed and right else 1.0  # what a right one weighs, so that both verdicts weigh alike
    rows: Counter[str] = Counter()
    hashes, names = [], Counter[str]()
    files = {part: (folder / f"{FILES[Example]}.{part}.jsonl").open("w", encoding="utf-8") for part in PARTS}
    try:
        for part, drill in parted:
            example = to_example(drill, weight=round(even, 4) if drill.right else correction_weight)
            files[part].write(json.dumps(to_row(example), ensure_ascii=False) + "\n")
            rows[f"{FILES[Example]}.{part}"] += 1
            if part == "train":
                hashes.append(hash_row(example))
            names["right" if drill.flaw is None else drill.flaw.name] += 1
    finally:
        for file in files.values():
            file.close()
    digest = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    tasks = {part: sorted({drill.task.id for each, drill in parted if each == part}) for part in PARTS}
    return {
        "sha256": digest,
        "files": hash_files(folder),
        "rows": dict(rows),
        "node": "checker",
        "tasks": {part: len(ids) for part, ids in tasks.items()},
        "counts": {f"exercises: {name}": count for name, count in sorted(names.items())},
        "made_by": f"cmat-graph {cmat_graph.__version__}",
    }


PARTS = ("train", "validation")
