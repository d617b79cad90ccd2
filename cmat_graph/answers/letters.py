"""The letter of one option as a final answer."""

from __future__ import annotations

import re

from cmat_graph.answers.folding import fold

_LETTER = re.compile(
    r"""
    \(\s*([A-Za-z])\s*\)                                             # (B)
  | \[\s*([A-Z])\s*\]                                                # [B]
  | \\f?box(?:ed)?\s*+\{?\s*+(?:\\(?:text|mathrm|textbf|mathbf)\s*+\{)?\s*+\(?\s*+([A-Za-z])\s*+\)?\s*+\}    # \boxed{B}
  | \b[Aa]nswer\s*+(?:is\b)?\s*+[:=]?[\s*_"']*+([A-Z])[*_"']*+[ \t]*+(?:[.):,\n]|$)                 # Answer: B
    """,
    re.VERBOSE,
)
_ALONE = re.compile(r"\W*([A-Za-z])\W*")


def extract_letter(reply: str) -> str | None:
    r"""Return the letter a reply ends with, upper-cased.

    The last of `(B)`, `[B]`, `\boxed{B}` and `Answer: B`; else a reply that is nothing but a letter.

    Example:
        >>> extract_letter("(A) is out, so it must be (c).")
        'C'

    """
    text = fold(reply)
    found = None
    for found in _LETTER.finditer(text):  # noqa: B007 - the last one
        pass
    if found is None:
        found = _ALONE.fullmatch(text[-100:]) if len(text) <= 100 else None
    return next(group for group in found.groups() if group).upper() if found else None


def same_letter(left: str, right: str) -> bool:
    """Tell whether two letters are one, whatever their case."""
    return left.strip().upper() == right.strip().upper()
