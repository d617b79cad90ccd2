"""Take answers apart that hold several: tuples, intervals, sets, matrices, unions, lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_OPEN, _CLOSE = frozenset(_CLOSING), frozenset(_CLOSING.values())
MOST_MEMBERS = 200
"""More are not paired off."""


@dataclass(frozen=True, slots=True)
class Parted:
    """An answer in its parts."""

    form: str
    """Its brackets, `∪` for a union, `,` for a list without brackets; empty for a single value."""
    members: tuple[str, ...]

    @property
    def is_list(self) -> bool:
        """Whether it holds anything but one value."""
        return bool(self.form)

    @property
    def ordered(self) -> bool:
        """Whether the members' order counts: not in a set, nor in a union."""
        return self.form not in ("{}", "∪")


def part(text: str) -> Parted:
    """Take a plain answer apart.

    Parentheses around one value are no tuple; an interval keeps its two brackets, as `[)`.

    Example:
        >>> part("[0,inf)"), part("(x+1)(x+2)")
        (Parted(form='[)', members=('0', 'inf')), Parted(form='', members=('(x+1)(x+2)',)))

    """
    unions = _split(text, "∪")
    if len(unions) > 1:
        return Parted("∪", unions)
    if text[:1] in _OPEN and text[-1:] in _CLOSE and _encloses(text):
        inside = text[1:-1]
        members = _split(inside, ",")
        if len(members) > 1 or text[0] in "[{":
            return Parted(text[0] + text[-1], members if inside else ())
    members = _split(text, ",")
    return Parted(",", members) if len(members) > 1 else Parted("", (text,))


def unwrap(text: str) -> str:
    """Take away parentheses around one value: `(5)` is 5, and `(1,2)` stays."""
    while text[:1] == "(" and text[-1:] == ")" and _encloses(text) and len(_split(text[1:-1], ",")) == 1:
        text = text[1:-1]
    return text


def pair_off(left: Sequence[str], right: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    """Tell whether each member of one side has one of its own on the other, whatever their order."""
    if max(len(left), len(right)) > MOST_MEMBERS:
        return sorted(left) == sorted(right)
    free = sorted(right)
    for member in sorted(left):
        match = next((i for i, other in enumerate(free) if member == other or same(member, other)), None)
        if match is None:
            return False
        del free[match]
    return not free


def _split(text: str, at: str) -> tuple[str, ...]:
    """Split at a character that stands in no brackets."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth = max(0, depth - 1)
        elif char == at and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return (*parts, text[start:])


def _encloses(text: str) -> bool:
    """Tell whether the first bracket is closed by the last: `(1,2)` and `[1,2)`, not `(1)(2)`."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0:
            return i == len(text) - 1
    return False
