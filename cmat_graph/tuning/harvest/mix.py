"""How much each row counts: environments in balance, and general instructions beside those of agents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cmat_graph.tuning.harvest.spool import Candidate
from cmat_graph.tuning.sources import HarvestSettings

MOST = 4.0
"""How much more a verdict of the seldom side may count: few rows at a great weight are learned by heart."""


def weigh(rows: Sequence[Candidate], settings: HarvestSettings) -> None:
    """Set the scale of each row's weights.

    With `balance` each environment has the same share of the agent rows' loss; verdicts of both sides always have. Then
    general rows get the share 1 - eta of all (formula F15). Characters of targets stand for tokens.
    """
    agent = [row for row in rows if not row.general]
    sided = [row for row in agent if row.side]
    _even(sided, [row.side for row in sided], most=MOST)
    if settings.balance:
        _even(agent, [row.env for row in agent])
    general = [row for row in rows if row.general]
    of_agent, of_general = _sum(agent), _sum(general)
    if of_agent and of_general and 0 < settings.eta < 1:
        scale = of_agent * (1 - settings.eta) / settings.eta / of_general
        for row in general:
            row.scale *= scale


def _sum(rows: Sequence[Candidate]) -> float:
    return sum(row.loss * row.scale for row in rows)


def _even(rows: Sequence[Candidate], groups: Sequence[str], *, most: float = float("inf")) -> None:
    """Give each group the same share, as far as no row then counts more than `most` times as much as before."""
    sums: dict[str, float] = defaultdict(float)
    for row, group in zip(rows, groups, strict=True):
        sums[group] += row.loss * row.scale
    share = sum(sums.values()) / max(1, len(sums))
    for row, group in zip(rows, groups, strict=True):
        row.scale *= min(most, share / sums[group])
