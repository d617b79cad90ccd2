r"""Tell whether two final answers of MATH are equivalent.

In this order: equal texts; equal after `latex.plain`; sets, tuples, intervals and matrices element by element with
matching brackets; two fractions only if they are written alike (an unreduced one does not match); a whole number only
with a whole number; other numbers by their exact value; the rest by algebra, in a process of its own (`symbolic`).
The published grader asks which of the two is the truth in places; here no rule does, so it is symmetric.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from cmat_graph.answers.boxed import last_boxed
from cmat_graph.answers.folding import fold
from cmat_graph.answers.latex import LONGEST, plain, tidy
from cmat_graph.answers.structure import pair_off, part, unwrap
from cmat_graph.answers.symbolic import same_value

_FRACTION = re.compile(r"-?\d+/\d+")
_WHOLE = re.compile(r"-?\d+")
_NUMBER = re.compile(
    r"(?P<sign>-?)(?:\(?(?P<mixed>\d{1,50})\+(?P<of>\d{1,50}/\d{1,50})\)?"
    r"|(?P<plain>\d{1,50}(?:\.\d{1,50}|/\d{1,50})?))"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
DEEPEST = 8
"""Levels of lists within lists that are taken apart."""


def extract_boxed(reply: str) -> str | None:
    r"""Return what the last `\boxed` of a reply holds, tidied; None where there is none that closes.

    Example:
        >>> extract_boxed(r"Hence $\boxed{x = \dfrac{3}{4}}$.")
        '\\frac{3}{4}'

    """
    inside = last_boxed(fold(reply))
    return (tidy(inside) or None) if inside is not None else None


def same_boxed(left: str, right: str) -> bool:
    r"""Tell whether two answers are equivalent; reflexive and symmetric, and never raises.

    Example:
        >>> same_boxed(r"\frac{1}{2}", "0.5"), same_boxed(r"\frac{2}{4}", r"\frac{1}{2}")
        (True, False)

    """
    if left == right:
        return True
    if max(len(left), len(right)) > LONGEST:
        return tidy(left) == tidy(right)
    return _same(*sorted((left, right)))


@lru_cache(maxsize=8192)
def _same(left: str, right: str) -> bool:
    return _same_plain(plain(left), plain(right), DEEPEST)


def _same_plain(one_side: str, other_side: str, depth: int) -> bool:
    left, right = sorted((unwrap(one_side), unwrap(other_side)))
    if left == right:
        return True
    if not left or not right or not depth:
        return False
    one, other = part(left), part(right)
    if one.is_list or other.is_list:
        if one.form != other.form or len(one.members) != len(other.members):
            return False

        def same(a: str, b: str) -> bool:
            return _same_plain(a, b, depth - 1)

        if one.ordered:
            return all(map(same, one.members, other.members))
        return pair_off(one.members, other.members, same)
    if _FRACTION.fullmatch(left) and _FRACTION.fullmatch(right):
        return False
    if bool(_WHOLE.fullmatch(left)) != bool(_WHOLE.fullmatch(right)):
        return False
    values = _value(left), _value(right)
    if None not in values:
        return values[0] == values[1]
    if _WORD.fullmatch(left) or _WORD.fullmatch(right):
        return False
    return same_value(left, right)


def _value(text: str) -> Fraction | None:
    """Return the exact value of a plain or mixed number; None for anything else."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    try:
        value = Fraction(found["plain"]) if found["plain"] else Fraction(found["mixed"]) + Fraction(found["of"])
    except ZeroDivisionError:
        return None
    return -value if found["sign"] else value
