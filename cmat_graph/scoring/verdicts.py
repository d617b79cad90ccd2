"""How good verdicts are: accuracy, precision, recall and F1 of finding flaws, and how far sureness can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cmat_graph.errors import ConfigurationError

BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictScore:
    """Counts of verdicts against the truth; a flaw that is found is the positive."""

    found: int
    """Flawed actions that were not approved."""
    missed: int
    """Flawed actions that were approved."""
    false_alarms: int
    """Right actions that were not approved."""
    approved: int
    """Right actions that were approved."""

    @property
    def total(self) -> int:
        """Number of verdicts."""
        return self.found + self.missed + self.false_alarms + self.approved

    @property
    def accuracy(self) -> float:
        """Share of right verdicts."""
        return _share(self.found + self.approved, self.total)

    @property
    def precision(self) -> float:
        """Of what was sent back, the share that was flawed; 0 where nothing was."""
        return _share(self.found, self.found + self.false_alarms)

    @property
    def recall(self) -> float:
        """Of what was flawed, the share that was sent back."""
        return _share(self.found, self.found + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _share(2 * self.found, 2 * self.found + self.false_alarms + self.missed)

    @property
    def se(self) -> float:
        """Standard error of the accuracy."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.total) if self.total else 0.0

    def to_json(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            "accuracy": round(self.accuracy, 4),
            "se": round(self.se, 4),
            "precision": round(self.precision, 4),
            "recall": round(self.recall, 4),
            "f1": round(self.f1, 4),
            "verdicts": self.total,
        }


def score_verdicts(approved: Sequence[bool], right: Sequence[bool]) -> VerdictScore:
    """Compare verdicts with the truth.

    Args:
        approved: Whether the checker approved each action.
        right: Whether the action was right.

    Raises:
        ConfigurationError: There are not as many verdicts as truths.

    Example:
        >>> score_verdicts([True, False, True], [True, False, False]).accuracy
        0.6666666666666666

    """
    if len(approved) != len(right):
        raise ConfigurationError(f"{len(approved)} verdicts cannot be compared with {len(right)} truths")
    pairs = list(zip(approved, right, strict=True))
    return VerdictScore(
        found=pairs.count((False, False)),
        missed=pairs.count((True, False)),
        false_alarms=pairs.count((False, True)),
        approved=pairs.count((True, True)),
    )


def calibration_error(chances: Sequence[float], came_true: Sequence[bool], *, bins: int = BINS) -> float:
    """Return the expected calibration error: how far the told chance lies from the share that came true.

    Equal-width bins, weighted by how many fall into each (Guo et al., On calibration of modern neural networks, 2017).

    Args:
        chances: Told chances, 0..1.
        came_true: What came of each.
        bins: How many bins.

    Example:
        >>> calibration_error([0.5, 0.5], [True, False])
        0.0

    """
    boxes: dict[int, list[tuple[float, bool]]] = {}
    for chance, true in zip(chances, came_true, strict=True):
        boxes.setdefault(min(bins - 1, int(chance * bins)), []).append((chance, true))
    gap = sum(abs(sum(chance for chance, _ in box) - sum(true for _, true in box)) for box in boxes.values())
    return _share(gap, len(chances))


def brier_score(chances: Sequence[float], came_true: Sequence[bool]) -> float:
    """Return the mean squared distance of told chances from what came (Brier, 1950); 0 is best, 0.25 knows nothing.

    Example:
        >>> brier_score([1.0, 0.0], [True, True])
        0.5

    """
    return _share(sum((chance - true) ** 2 for chance, true in zip(chances, came_true, strict=True)), len(chances))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
