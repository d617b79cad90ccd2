"""What came into each stage of a harvest, what left it, and why the rest did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

STAGES = ("collect", "filter", "distil", "augment", "mix")
"""In the order in which they run. Augmentation follows selection: a row that a task has no room for needs no copies."""


class Tally:
    """Counts of one harvest, by stage."""

    def __init__(self) -> None:
        self._in: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
        self._out: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
        self._left: dict[str, Counter[tuple[str, str]]] = {stage: Counter() for stage in STAGES}

    def took(self, stage: str, what: str, number: int = 1) -> None:
        """Count what a stage was given."""
        self._in[stage][what] += number

    def gave(self, stage: str, what: str, number: int = 1) -> None:
        """Count what it handed on."""
        self._out[stage][what] += number

    def left(self, stage: str, what: str, reason: str, number: int = 1) -> None:
        """Count what it left out."""
        self._left[stage][what, reason] += number

    def stages(self) -> dict[str, Any]:
        """Return the counts as the manifest keeps them."""
        return {
            stage: {
                "in": _sorted(self._in[stage]),
                "out": _sorted(self._out[stage]),
                "left_out": _sorted({f"{what}: {why}": n for (what, why), n in self._left[stage].items()}),
            }
            for stage in STAGES
        }

    def flat(self) -> dict[str, int]:
        """Return the counts as a card keeps them: how much was there, how much is left, and each reason.

        Example:
            >>> tally = Tally()
            >>> tally.took("collect", "episodes", 3)
            >>> tally.left("filter", "episodes", "not solved", 2)
            >>> tally.flat()
            {'episodes': 3, 'episodes left out: not solved': 2}

        """
        counts = {what: number for what, number in sorted(self._in["collect"].items()) if number}
        for stage in STAGES:
            for (what, why), number in sorted(self._left[stage].items()):
                name = f"{what} left out: {why}"
                if number:
                    counts[name] = counts.get(name, 0) + number
        return counts | {what: number for what, number in sorted(self._out["mix"].items()) if number}


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: number for name, number in sorted(counts.items()) if number}
