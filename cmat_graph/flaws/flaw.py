"""What a flaw is, and how texts are misspelt."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from cmat_graph.types import Category


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """A right action and what became of it."""

    name: str
    """Which flaw, such as `wrong column`."""
    broken: str
    fixed: str
    """The gold action."""
    reason: str
    """What a checker says of it: the flaw, and nothing that only the gold could tell apart from the task."""
    decision: Literal["revise", "reject"] = "revise"
    """`reject` for what must not run in any form."""
    category: Category = "wrong"


def misspell(rng: random.Random, text: str) -> str:
    """Change one letter in the middle of a text; the same text comes back when it has none to change.

    Example:
        >>> misspell(random.Random(3), "Status") != "Status"
        True

    """
    places = [at for at in range(1, len(text) - 1) if text[at].isalnum()]
    if not places:
        return text
    at = rng.choice(places)
    changed = (
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + rng.choice("0123456789" if text[at].isdigit() else "aeiorstln") + text[at + 1 :],
        text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
    )
    different = [each for each in changed if each.casefold() != text.casefold()]
    return rng.choice(different) if different else text
