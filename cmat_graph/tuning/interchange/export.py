"""Write a dataset for another trainer."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cmat_graph.adapters.card import check_name
from cmat_graph.errors import ConfigurationError, DatasetError
from cmat_graph.tuning.dataset import MANIFEST, Dataset, Example
from cmat_graph.tuning.interchange import agentinstruct, llamafactory, openai, rllm, swift, trl
from cmat_graph.tuning.interchange.forms import Form, JsonRow, UnfitError, weight_of

logger = logging.getLogger(__name__)

FORMS: dict[str, Form] = {
    "llamafactory": llamafactory.SHAREGPT,
    "alpaca": llamafactory.ALPACA,
    "openai": openai.FORM,
    "trl": trl.FORM,
    "swift": swift.FORM,
    "rllm": rllm.FORM,
    "agentinstruct": agentinstruct.FORM,
}
"""The forms by their names; `llamafactory` is its sharegpt form and `alpaca` its other one."""


def export(dataset: Dataset, folder: str | Path, form: str, *, name: str = "cmat") -> list[Path]:
    """Write a dataset in another trainer's form, with what that trainer needs beside it.

    What a form cannot hold (rows of a kind that it lacks, tool calls in alpaca, fractions of weights where it knows
    only 0 and 1) is logged as a warning with its number.

    Args:
        dataset: What to write.
        folder: Where to; files of earlier exports of the same name are replaced, other files stay.
        form: A name of `FORMS`.
        name: What LLaMA-Factory calls the dataset.

    Returns:
        The files that were written.

    Raises:
        ConfigurationError: There is no such form, the name holds characters of a path, or the folder holds a dataset
            of ours.
        DatasetError: The form can hold none of the rows.

    """
    if form not in FORMS:
        raise ConfigurationError(f"no form {form!r} to export to; known: {', '.join(FORMS)}")
    check_name(name)
    chosen, folder = FORMS[form], Path(folder)
    if (folder / MANIFEST).exists():
        raise ConfigurationError(f"{folder} holds a dataset, which the export would overwrite; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    lost: Counter[str] = Counter()
    files: dict[str, Path] = {}
    for part in ("train", "validation"):
        kinds: list[tuple[str, Iterable[Any], Callable[[Any], Iterator[JsonRow]] | None]] = [
            ("sft", dataset.examples(part), chosen.sft),
            ("pairs", dataset.pairs(part), chosen.pairs),
            ("judged", dataset.judged(part), chosen.judged),
        ]
        for kind, rows, write in kinds:
            target = folder / f"{chosen.stem(name, kind, part)}.jsonl"
            if _write(target, _converted(rows, write, kind, form, lost, keeps=chosen.weighs)):
                files[f"{kind}.{part}"] = target
    if not files:
        told = "; ".join(f"{count} {reason}" for reason, count in lost.items()) or "it is empty"
        raise DatasetError(f"nothing of {dataset.folder} can be written as {form} ({told}); known: {', '.join(FORMS)}")
    for reason, count in lost.items():
        logger.warning("%d %s", count, reason)
    beside = chosen.describe(folder, name, dataset, files) if chosen.describe is not None else []
    return [*files.values(), *beside]


def _converted(
    rows: Iterable[Any],
    write: Callable[[Any], Iterator[JsonRow]] | None,
    kind: str,
    form: str,
    lost: Counter[str],
    *,
    keeps: bool,
) -> Iterator[JsonRow]:
    for row in rows:
        if write is None:
            lost[f"rows left out: {form} has no form for {kind}"] += 1
            continue
        try:
            yield from write(row)
        except UnfitError as exc:
            lost[f"rows left out: {exc}"] += 1
            continue
        uneven = sum(weight_of(m) not in (0.0, 1.0) for m in row.messages) if isinstance(row, Example) else 0
        if uneven and not keeps:
            lost[f"weights became 1: {form} knows only 0 and 1"] += uneven


def _write(target: Path, rows: Iterator[JsonRow]) -> int:
    """Write rows aside and put the file in its place; without rows there is no file, nor that of an earlier export."""
    aside, count = target.with_name(target.name + ".part"), 0
    try:
        with aside.open("w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        if count:
            os.replace(aside, target)
        else:
            target.unlink(missing_ok=True)
    except OSError as exc:
        raise OSError(f"cannot write {target}: {exc}; free some disk space, or name another folder") from exc
    finally:
        aside.unlink(missing_ok=True)
    return count
