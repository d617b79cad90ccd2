"""Is one arm better than another on the same tasks? Paired tests and intervals, without any package.

    McNemar, exact   p = P(Bin(b + c, 1/2) >= b)     b: tasks that only the first arm solved, c: only the second
    sign flips       p = P(sum s_i d_i >= sum d_i)   s_i = +-1 at random; for rewards between 0 and 1
    bootstrap        percentiles of the mean difference over tasks drawn with replacement

Both tests ask one question, whether the first arm is better, so they are one-sided. With rewards of 0 and 1 alone the
second is the first. McNemar (1947), Note on the sampling error of the difference between correlated proportions;
Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 and 15.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

ALPHA = 0.05
"""The chance that an arm which is no better is found better all the same."""
DRAWS = 10_000
"""Random draws of a bootstrap or of sign flips: a p of 0.05 is known to within 0.004."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """How two arms did on the same tasks."""

    tasks: int
    first: float
    """Mean reward of the first arm."""
    second: float
    only_first: int
    """Tasks that only the first arm solved."""
    only_second: int
    difference: float
    """Mean of the differences of rewards."""
    stderr: float
    """Standard error of that mean."""
    low: float
    """The interval that holds the true mean difference, by the bootstrap."""
    high: float
    confidence: float
    """Of the interval, such as 0.95."""
    p: float
    """The chance of so great an advantage of the first arm, were it no better."""
    test: str
    """`McNemar` where every reward is 0 or 1, else `sign flips`."""

    def to_json(self) -> dict[str, Any]:
        """Return what is kept on a card."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def compare_rewards(
    first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> Paired:
    """Compare two arms by their rewards, task by task.

    Example:
        >>> paired = compare_rewards([1.0] * 9 + [0.0], [1.0] * 2 + [0.0] * 8)
        >>> paired.only_first, paired.only_second, round(paired.p, 4)
        (7, 0, 0.0078)

    Raises:
        ValueError: They are not of the same tasks.

    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    only_first = sum(a >= 1.0 > b for a, b in zip(first, second, strict=True))
    only_second = sum(b >= 1.0 > a for a, b in zip(first, second, strict=True))
    binary = all(reward in (0.0, 1.0) for reward in (*first, *second))
    low, high = bootstrap_interval(differences, confidence=confidence, seed=seed)
    return Paired(
        tasks=len(differences),
        first=mean(first),
        second=mean(second),
        only_first=only_first,
        only_second=only_second,
        difference=mean(differences),
        stderr=standard_error(differences),
        low=low,
        high=high,
        confidence=confidence,
        p=mcnemar(only_first, only_second) if binary else sign_flips(differences, seed=seed),
        test="McNemar" if binary else "sign flips",
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact one-sided p of McNemar's test.

    Example:
        >>> mcnemar(0, 0), mcnemar(5, 0)
        (1.0, 0.03125)

    """
    tried = only_first + only_second
    return float(sum(math.comb(tried, k) for k in range(only_first, tried + 1)) / 2**tried)


def sign_flips(differences: Sequence[float], *, draws: int = DRAWS, seed: int = 0) -> float:
    """Return the one-sided p of a paired permutation test; exact up to 12 tasks that differ, drawn beyond."""
    told = [difference for difference in differences if difference]
    seen = sum(told) - 1e-12
    if len(told) <= 12:
        sums = [0.0]
        for difference in told:
            sums = [each + sign for each in sums for sign in (difference, -difference)]
        return sum(each >= seen for each in sums) / len(sums)
    rng = random.Random(f"signs:{seed}")
    drawn = (sum(d if rng.random() < 0.5 else -d for d in told) for _ in range(draws))
    return (1 + sum(each >= seen for each in drawn)) / (1 + draws)


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of a mean; of no values it says nothing."""
    if not values:
        return -math.inf, math.inf
    rng = random.Random(f"bootstrap:{seed}")
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(draws))
    tail = (1 - confidence) / 2
    return means[int(tail * draws)], means[min(draws - 1, int((1 - tail) * draws))]


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; 0 of fewer than two."""
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1) / len(values))
