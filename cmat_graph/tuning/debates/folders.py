"""A folder with one dataset an agent, and the report of how they were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmat_graph.errors import DatasetError, EmptyHarvestError
from cmat_graph.tuning.dataset import MANIFEST, Dataset, WeightedMessage
from cmat_graph.tuning.debates.piles import PARTS, Piles, write_set
from cmat_graph.tuning.debates.reading import Reader
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.transcript import Transcript
from cmat_graph.tuning.harvest.run import SPOOL, aside
from cmat_graph.tuning.harvest.spool import Spool
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.types import Message, Task

REPORT = "debates.json"
POOL = "pool"
"""The pile of a set for one model."""


class DebateSets(Mapping[str, Dataset]):
    """The datasets of a society's agents by their seats, such as `critic-0`; read from the folder they lie in.

    A seat without any row has no dataset: its agent is kept as it was.

    Args:
        folder: Where `debate_sets` or `preference_sets` wrote them.

    Raises:
        DatasetError: It holds none.

    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            told = json.loads((self.folder / REPORT).read_text(encoding="utf-8"))
            self._sets = {
                str(node): Dataset(self.folder / node) for node, about in told["agents"].items() if about["made"]
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise DatasetError(f"no datasets of debates in {folder}: {exc}; make them anew with debate_sets") from exc
        self.report: dict[str, Any] = told
        """Counts of questions, pseudo-labels and each agent's rows, and the rules: JSON-shaped."""

    def __getitem__(self, node: str) -> Dataset:
        return self._sets[node]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)

    @property
    def kept(self) -> list[str]:
        """The seats that got no dataset, whose agents stay as they were."""
        return [node for node, about in self.report["agents"].items() if not about["made"]]


@contextmanager
def making(folder: str | Path, settings: DebateSetSettings, *, known: str) -> Iterator[tuple[Path, Piles]]:
    """Make a folder aside, with piles to sort rows into; it takes its place when all went well."""
    with aside(Path(folder), known=known) as place:
        with Spool(place / SPOOL) as spool:
            yield place, Piles(spool, settings)
        (place / SPOOL).unlink()


def write_report(folder: Path, told: Mapping[str, Any]) -> None:
    """Write the report of several datasets."""
    (folder / REPORT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def new_tally(reader: Reader) -> Tally:
    """Begin the counts of one dataset with those of the questions."""
    tally = Tally()
    tally.took("collect", "questions", reader.read)
    for why, number in reader.left.items():
        tally.left("filter", "questions", why, number)
    return tally


def refuse_empty(reader: Reader, run: str | None, what: str, *, fix: str = "") -> None:
    """Say that nothing is left to train on, and why.

    Raises:
        EmptyHarvestError: Always.

    """
    told = "; ".join(f"{why}: {number}" for why, number in sorted(reader.left.items())) or "none was left out"
    name = "any run" if run is None else f"run {run!r}"
    if not reader.read:
        raise EmptyHarvestError(
            f"no debates in {name}: nothing to make {what} of; record some first with: cmat-graph debate --env "
            "questions --traces URL --run LABEL"
        )
    raise EmptyHarvestError(
        f"nothing to make {what} of in {reader.read} questions of {name} ({told}; used: {reader.used}); "
        + (fix or "take more questions, a base that answers some of them, or a lower minimum_agreement")
    )


def asked(debate: Transcript, prompt: Callable[[Task], list[Message]] | None) -> list[WeightedMessage]:
    """Return how the question was first asked, or shall be; empty where every first call failed."""
    if prompt is not None:
        return [WeightedMessage(**message) for message in prompt(debate.episode.task)]  # type: ignore[typeddict-item]
    first = [reply.prompt for agent in range(debate.agents) if (reply := debate.first(agent)) is not None]
    return first[0] if first else []


def make_set(
    folder: str | Path,
    reader: Reader,
    gather: Callable[[Piles], None],
    rules: Mapping[str, Any],
    settings: DebateSetSettings,
    run: str | None,
    node: str,
    share: float,
    *,
    fix: str = "",
) -> Dataset:
    """Make one dataset of what is gathered.

    Raises:
        EmptyHarvestError: That is nothing.

    """
    with making(folder, settings, known=MANIFEST) as (place, piles):
        gather(piles)
        rows = {("sft", part): piles.of(node, POOL, part, share) for part in PARTS}
        if not rows["sft", "train"]:
            refuse_empty(reader, run, f"the {rules['rule']} set", fix=fix)
        write_set(place, piles, rows, rules, new_tally(reader), node)
    return Dataset(folder)


def rules_of(rule: str, settings: DebateSetSettings, run: str | None, share: float) -> dict[str, Any]:
    """Return the rules of one set, as its manifest keeps them."""
    return {"rule": rule, **asdict(settings), "run": run, "validation_share": share}
