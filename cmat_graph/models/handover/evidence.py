"""How sure one may be that one success rate is below another, however often one looks.

An e-value that stays valid at any time one cares to look: the mixture likelihood of the outcomes under `p < q`, both
uniform, over their highest likelihood under `p >= q`. If the rate p is not below q, this is never more than a
martingale that starts at 1, so by Ville's inequality it ever reaches 1 / alpha with a chance of at most alpha: the
bound holds over all looks together, and for any share of episodes. It takes outcomes to be independent, and to come
in an order that does not depend on them: where failures are known much sooner than successes, it is a little less.

Robbins (1970), Statistical methods related to the law of the iterated logarithm; Wasserman, Ramdas and Balakrishnan
(2020), Universal inference; Kaufmann and Koolen (2021), Mixture martingales revisited.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Tally(NamedTuple):
    """Outcomes of some episodes."""

    episodes: int = 0
    successes: int = 0

    @property
    def rate(self) -> float | None:
        """The share of successes; None before the first outcome."""
        return self.successes / self.episodes if self.episodes else None

    def plus(self, success: bool) -> Tally:
        """Count one more."""
        return Tally(self.episodes + 1, self.successes + success)


def is_worse(first: Tally, second: Tally, *, alpha: float) -> bool:
    """Tell whether the first rate is below the second; wrong with a chance of at most `alpha`, over all looks.

    Example:
        >>> is_worse(Tally(20, 6), Tally(80, 64), alpha=0.05)
        True
        >>> is_worse(Tally(20, 15), Tally(80, 64), alpha=0.05)
        False

    """
    return log_evidence(first, second) >= math.log(1 / alpha)


def log_evidence(first: Tally, second: Tally) -> float:
    """Return the logarithm of the e-value for the first rate being below the second."""
    (n, s), (m, t) = first, second
    if not n or not m or s * m >= t * n:
        return _mixture(n, s) + _mixture(m, t) - _highest(n, s) - _highest(m, t)
    below = _chance_below(s + 1, n - s + 1, t + 1, m - t + 1)
    return math.log(2 * below) + _mixture(n, s) + _mixture(m, t) - _highest(n + m, s + t)


def _mixture(n: int, s: int) -> float:
    """Log-likelihood of s successes among n, averaged over all rates."""
    return _log_beta(s + 1, n - s + 1)


def _highest(n: int, s: int) -> float:
    """Log-likelihood at the rate that was seen."""
    return sum(k * math.log(k / n) for k in (s, n - s) if k)


def _chance_below(a: int, b: int, c: int, d: int) -> float:
    """Return P(X < Y) for X of Beta(a, b) and Y of Beta(c, d); exact for whole numbers."""
    if b < c:  # the same, seen from the failures, in fewer terms
        a, b, c, d = d, c, b, a
    terms = (_log_beta(a + i, b + d) - math.log(d + i) - _log_beta(1 + i, d) - _log_beta(a, b) for i in range(c))
    return min(1.0, sum(math.exp(term) for term in terms))


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
