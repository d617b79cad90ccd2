"""Extract and compare final answers. Pure functions, no environment knows about another here."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any


def parse_answer(text: str) -> list[Any]:
    """Read a final answer such as `["a", 2]` as a list; anything unreadable becomes a list of its text.

    Follows AgentBench's database task, which evaluates the text as Python; here only literals are evaluated.
    """
    text = text.strip()
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [text]
    if isinstance(value, list | tuple | set):
        return list(value)
    return [value]


def same_answer(answer: Sequence[Any], label: Sequence[Any]) -> bool:
    """Compare an answer with the label by AgentBench's rule for database questions.

    One value against one value: as floats where both are numbers, else as they stand. Otherwise as sets.
    """
    if len(answer) == 1 and len(label) == 1:
        left, right = answer[0], label[0]
        try:
            return float(left) == float(right)
        except (TypeError, ValueError):
            return bool(left == right)
    try:
        return set(answer) == set(label)
    except TypeError:  # an unhashable member, such as a nested list
        return False
