"""What a harvest has chosen, in two parts that share no task, and whether it is worth training on."""

from __future__ import annotations

from dataclasses import dataclass

from cmat_graph.errors import EmptyHarvestError
from cmat_graph.tuning.dataset import Part
from cmat_graph.tuning.harvest.collect import Found
from cmat_graph.tuning.harvest.pairs import Choice
from cmat_graph.tuning.harvest.spool import Candidate
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings

SIDES = {"approve": "right", "revise": "wrong"}
"""The verdicts, and the actions that they are for."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """The chosen rows."""

    train: list[Candidate]
    validation: list[Candidate]
    preferences: Choice
    """Of both parts."""
    tasks: set[int]
    """Numbers of the tasks that are kept to choose by."""

    def of(self, task: int) -> Part:
        """Return the part that a task belongs to."""
        return "validation" if task in self.tasks else "train"


def check_enough(parts: Parts, found: Found, settings: HarvestSettings, tally: Tally) -> None:
    """Refuse a harvest that nothing can be learned from.

    Raises:
        EmptyHarvestError: It is empty, or its verdicts all say the same; the message counts why.

    """
    sides = {row.side for row in parts.train if row.side}
    if len(sides) == 1:
        there = sides.pop()
        missing = next(side for side in SIDES if side != there)
        raise EmptyHarvestError(
            f"all {len(parts.train)} verdicts are {there!r}, and a checker that never saw {missing!r} learns nothing; "
            f"record episodes with {SIDES[missing]} actions too (a weaker assistant for wrong ones, the expert for "
            "right ones), or take made ones: cmat-graph flaws"
        )
    pairs = parts.preferences.pairs
    if parts.train or any(parts.of(found.deeds[pair.rejected].task) == "train" for pair in pairs):
        return
    counts = [f"{reason}: {count}" for reason, count in tally.flat().items()]
    if parts.validation:
        counts.append(f"rows of validation tasks: {len(parts.validation)}; lower validation_share")
    if found.nodes and settings.node not in found.nodes:
        counts.append(f"no step of {settings.node!r}, only of {', '.join(sorted(found.nodes))}: choose with --node")
    told = "; ".join(counts) or "no episodes at all"
    raise EmptyHarvestError(
        f"nothing to train {settings.node!r} on in split {settings.split!r} ({told}); record solved episodes first, "
        "for example with: cmat-graph run --assistant expert --split train. Traces of a graph of your own have no "
        "split and no reward: take --split all --min-reward 0"
    )
