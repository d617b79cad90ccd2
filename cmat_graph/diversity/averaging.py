"""From values of agents on questions to one figure: first over the pairs of a question, then over questions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from cmat_graph.diversity.results import Measure


def average(values: Iterable[tuple[int, str, float]]) -> Measure:
    """Average (question, agent or pair, value); a question counts as one, however many pairs it has.

    Example:
        >>> average([(0, "0|1", 1.0), (0, "1|0", 3.0), (1, "0|1", 4.0)]).value
        3.0

    """
    by_question: dict[int, list[float]] = defaultdict(list)
    by_name: dict[str, list[float]] = defaultdict(list)
    for question, name, value in values:
        by_question[question].append(value)
        by_name[name].append(value)
    each = {name: _mean(found) for name, found in sorted(by_name.items())}
    return Measure.of([_mean(by_question[question]) for question in sorted(by_question)], each)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
