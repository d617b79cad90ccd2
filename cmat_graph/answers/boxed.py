r"""Find the final answer that stands in `\boxed{...}`."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\f?box(?:ed)?(?![A-Za-z])\s*")
_WORD = re.compile(r"\s*([^\s$.,;]+(?:[.,][^\s$.,;]+)*)")
r"""What a command without braces takes: up to a space, a dollar sign or the sentence's end."""
_ESCAPED_OR_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""Return what the last `\boxed` (or `\fbox`) holds; None where there is none, it is never closed or is empty.

    Takes nested and escaped braces, and `\boxed 5` (the published code refuses `\fbox` and the form without braces).

    Example:
        >>> last_boxed(r"so it is $\boxed{\frac{1}{2}}$.")
        '\\frac{1}{2}'

    """
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    found = _BOX.match(text, at) if at >= 0 else None
    if found is None:
        return None
    if text[found.end() : found.end() + 1] == "{":
        inside = inside_braces(text, found.end())
    else:
        word = _WORD.match(text, found.end())
        inside = word.group(1) if word else None
    return (inside or "").strip() or None


def inside_braces(text: str, start: int) -> str | None:
    r"""Return what stands between the brace at `start` and the one that closes it; None where none does.

    An escaped brace (`\{`) opens and closes nothing.
    """
    depth = 0
    for found in _ESCAPED_OR_BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(found.group(), 0)
        if depth == 0 and found.group() == "}":
            return text[start + 1 : found.start()]
    return None
