"""How a critic's set is drawn from C- and C+ (paper section 2.3: D^C = w D^C- + (1 - w) D^C+). Pure functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Literal, TypeVar

from cmat_graph.tuning.debates.settings import DebateSetSettings

T = TypeVar("T")
Fallback = Literal["", "C+", "C-"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed(Generic[T]):
    """What was drawn."""

    minus: list[T]
    plus: list[T]
    fallback: Fallback = ""
    """Where one side is empty the mix cannot be had: then all of this side was taken. `C+` is what the code of the
    paper's authors lacks: without it, a critic that never repairs anything would not be trained at all."""

    @property
    def share(self) -> float | None:
        """The share of C- that was reached; None of an empty set."""
        size = len(self.minus) + len(self.plus)
        return len(self.minus) / size if size else None


def mix(minus: Sequence[T], plus: Sequence[T], settings: DebateSetSettings, dice: random.Random) -> Mixed[T]:
    """Draw a critic's rows, without replacement and in the order in which they were given.

    Args:
        minus: Where the agent repaired itself (C-).
        plus: Where it stayed right (C+).
        settings: The mode and `w`.
        dice: Decides what is drawn.

    Example:
        >>> drawn = mix([1, 2, 3], [4, 5, 6, 7, 8], DebateSetSettings(w=0.75), random.Random(0))
        >>> len(drawn.minus), len(drawn.plus)
        (3, 1)

    """
    if not minus or not plus:
        return Mixed(minus=list(minus), plus=list(plus), fallback=_fallback(bool(minus), bool(plus), settings))
    if settings.mixing == "authors":
        heads = sum(dice.random() < 0.5 for _ in minus)
        return Mixed(minus=list(minus), plus=_draw(plus, min(heads, len(plus)), dice))
    w = Fraction(str(settings.w))  # 0.1 as it was written: floats would lose a row where 29 / 0.29 is 99.99...
    if settings.mixing == "fraction":
        few, many = _round(w * len(minus)), _round((1 - w) * len(plus))
    else:
        size = min(int(len(minus) / w) if w else len(plus), int(len(plus) / (1 - w)) if w < 1 else len(minus))
        few = _round(w * size)
        many = size - few
    return Mixed(minus=_draw(minus, few, dice), plus=_draw(plus, many, dice))


def _fallback(minus: bool, plus: bool, settings: DebateSetSettings) -> Fallback:
    """Name the side that stands in for an empty one, unless it alone was wanted anyway."""
    authors = settings.mixing == "authors"
    if plus and (authors or settings.w > 0):
        return "C+"
    return "C-" if minus and not authors and settings.w < 1 else ""


def _round(number: Fraction) -> int:
    return int(number + Fraction(1, 2))


def _draw(rows: Sequence[T], number: int, dice: random.Random) -> list[T]:
    return [rows[at] for at in sorted(dice.sample(range(len(rows)), number))]
