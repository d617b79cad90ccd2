"""Means with a standard error, where the same tasks were played with several seeds.

A plain error over all results would be too small: results of one task are alike, and so are those of one seed (one
training). Seeds and tasks are both taken as drawn at random:

    V = V_tasks + V_seeds - V_rest      (two-way clustering: Cameron, Gelbach and Miller, 2011)

`V_tasks` is the variance of the mean over tasks (each averaged over seeds), `V_seeds` that over seeds, and `V_rest`
what both contain: the part of a single result that neither its task nor its seed explains. With two or three seeds
`V_seeds` is a rough figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cmat_graph.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and how sure it is."""

    mean: float
    stderr: float

    def percent(self) -> str:
        """Write a share in percent.

        Example:
            >>> Estimate(mean=0.81, stderr=0.039).percent()
            '81.0 ± 3.9 %'

        """
        return f"{100 * self.mean:.1f} ± {100 * self.stderr:.1f} %"

    def points(self) -> str:
        """Write a difference of shares in percentage points.

        Example:
            >>> Estimate(mean=0.41, stderr=0.06).points()
            '+41.0 ± 6.0'

        """
        return f"{100 * self.mean:+.1f} ± {100 * self.stderr:.1f}"

    def to_json(self) -> dict[str, float]:
        """Return what is saved."""
        return asdict(self)


def estimate(values: Sequence[Sequence[float]]) -> Estimate:
    """Estimate the mean of results.

    Args:
        values: One row for each seed, one column for each task. A single row knows no error over seeds.

    Raises:
        ConfigurationError: The rows differ in length.

    Example:
        >>> estimate([[1.0, 0.0, 1.0, 1.0]])
        Estimate(mean=0.75, stderr=0.25)

    """
    if len({len(row) for row in values}) > 1:
        raise ConfigurationError("each seed needs a result for each task; play the tasks that one of them lacks")
    if not values or not values[0]:
        return Estimate(mean=0.0, stderr=0.0)
    seeds, tasks = len(values), len(values[0])
    by_seed = [sum(row) / tasks for row in values]
    by_task = [sum(column) / seeds for column in zip(*values, strict=True)]
    mean = sum(by_seed) / seeds
    over_seeds, over_tasks = _variance_of_mean(by_seed), _variance_of_mean(by_task)
    rest = sum(
        (value - by_seed[s] - by_task[t] + mean) ** 2 for s, row in enumerate(values) for t, value in enumerate(row)
    )
    free = (seeds - 1) * (tasks - 1) * seeds * tasks
    variance = over_seeds + over_tasks - (rest / free if free else 0.0)
    return Estimate(mean=mean, stderr=math.sqrt(max(variance, over_seeds, over_tasks)))


def difference(better: Sequence[Sequence[float]], worse: Sequence[Sequence[float]]) -> Estimate:
    """Estimate how much better one arm is than another, task by task and seed by seed.

    An arm that was played once, because no seed changes it, is paired with each seed of the other.

    Raises:
        ConfigurationError: The arms cannot be paired.

    Example:
        >>> difference([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]).mean
        0.5

    """
    rows = max(len(better), len(worse))
    first, second = (each * rows if len(each) == 1 else each for each in (list(better), list(worse)))
    if len(first) != len(second) or any(len(a) != len(b) for a, b in zip(first, second, strict=False)):
        raise ConfigurationError("only results of the same tasks and seeds can be paired")
    return estimate([[x - y for x, y in zip(a, b, strict=True)] for a, b in zip(first, second, strict=True)])


def _variance_of_mean(values: Sequence[float]) -> float:
    """Return the square of the standard error of a plain mean; 0 for one value, which tells nothing of it."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
