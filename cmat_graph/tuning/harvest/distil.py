"""Choose what to keep: no row twice, none that says the same, of each task the shortest and then the most different."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from cmat_graph.tuning.harvest.sketch import likeness
from cmat_graph.tuning.harvest.spool import Candidate
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings

CONSIDERED = 256
"""Rows of one task that are compared with each other, the shortest; the others of a task with more are left out."""


def choose(candidates: Sequence[Candidate], settings: HarvestSettings, tally: Tally) -> list[Candidate]:
    """Return what is kept, in the order in which it was recorded.

    What is left out is counted: `repeated`, `nearly repeated`, `the task has enough`.
    """
    tally.took("distil", "rows", len(candidates))
    by_task: dict[int, list[int]] = defaultdict(list)
    for at, each in enumerate(candidates):
        by_task[each.task].append(at)
    kept: list[int] = []
    for ats in by_task.values():
        kept += _of_task(ats, candidates, settings, tally)
    kept.sort()
    tally.gave("distil", "rows", len(kept))
    return [candidates[at] for at in kept]


def _of_task(
    ats: Sequence[int], candidates: Sequence[Candidate], settings: HarvestSettings, tally: Tally
) -> Iterator[int]:
    shortest = sorted(ats, key=lambda at: (candidates[at].steps, candidates[at].chars, at))
    different = _different(shortest, candidates, settings, tally)
    enough = settings.max_per_task or len(different)
    sides = sorted({candidates[at].side for at in different})
    if len(different) <= enough:
        chosen = different
    else:
        chosen = []
        share = dict.fromkeys(sides, 0)
        nearest = dict.fromkeys(different, -1.0)  # how like each row is to what was chosen
        while len(chosen) < enough:
            side = min(sides, key=lambda side: (share[side], side))
            pool = [at for at in nearest if candidates[at].side == side]
            if pool:
                chosen.append(min(pool, key=nearest.__getitem__))  # the shortest of several, and first of all
                share[side] += 1
                del nearest[chosen[-1]]
                for at in nearest:
                    nearest[at] = max(nearest[at], likeness(candidates[at].sketch, candidates[chosen[-1]].sketch))
            else:
                sides.remove(side)
    tally.left("distil", "rows", "the task has enough", len(different) - len(chosen))
    return iter(chosen)


def _different(
    shortest: Sequence[int], candidates: Sequence[Candidate], settings: HarvestSettings, tally: Tally
) -> list[int]:
    """Return one of each group of equals and near-equals, the shortest."""
    seen: set[bytes] = set()
    kept: list[int] = []
    for at in shortest:
        row = candidates[at]
        if row.digest in seen:
            tally.left("distil", "rows", "repeated")
        elif settings.max_per_task and len(kept) >= max(CONSIDERED, settings.max_per_task):
            tally.left("distil", "rows", "the task has enough")
        elif settings.near_equal < 1 and any(
            candidates[other].side == row.side and likeness(candidates[other].sketch, row.sketch) >= settings.near_equal
            for other in kept[-CONSIDERED:]
        ):
            tally.left("distil", "rows", "nearly repeated")
        else:
            kept.append(at)
        seen.add(row.digest)
    return kept
