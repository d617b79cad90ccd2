"""Short texts as final answers."""

from __future__ import annotations

import re

from cmat_graph.answers.folding import fold

_MARKER = re.compile(r"\banswer\s*+\**+\s*+:", re.IGNORECASE)


def extract_text(reply: str) -> str | None:
    """Return what follows the last `Answer:`, else the last line of a reply; None where it is empty.

    Example:
        >>> extract_text("It lies in the north.\\nAnswer: **Oslo**.")
        'Oslo'

    """
    text, at = fold(reply), 0
    for found in _MARKER.finditer(text):
        at = found.end()
    lines = text[at:].strip().splitlines()
    return _plain(lines[0 if at else -1]) if lines else None


def same_text(left: str, right: str) -> bool:
    """Tell whether two texts are the same words, whatever their case, spaces and closing punctuation."""
    return left == right or _key(left) == _key(right)


def _plain(line: str) -> str | None:
    return " ".join(line.split()).strip("*_`\"' ").rstrip(".!,;: ").strip("*_`\"' ") or None


def _key(text: str) -> str:
    return (_plain(fold(text)) or "").casefold()
