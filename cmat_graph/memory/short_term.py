"""Short-term memory: what of the current attempt's trajectory fits a prompt, counted in tokens.

A unit is an assistant's turn with all that answers it, so a tool call never parts from its result. The newest units
that fit are kept, the latest one whatever its size, and the one with the latest error however long ago it was. `trim`,
in `trimming`, does the same for LangChain messages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import chain
from math import ceil
from typing import Any, NamedTuple, TypeVar

from cmat_graph.types import Message

CHARS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 3
SHORTEST_CHARS = 200
"""No text is cut shorter than this."""
_NOTICE_CHARS = 40

M = TypeVar("M")


class Window(NamedTuple):
    """What is shown of a trajectory, and what is not."""

    kept: list[Message]
    left_out: list[Message]
    start: int
    """Where the newest turns begin in the trajectory; of what came before, only the latest error is kept."""


def count_tokens(messages: Sequence[Message]) -> int:
    """Estimate tokens as LangChain's `count_tokens_approximately` does: four characters each, three for a message."""
    return sum(TOKENS_PER_MESSAGE + ceil(_chars(message) / CHARS_PER_TOKEN) for message in messages)


def window(
    trajectory: Sequence[Message], *, max_tokens: int, count: Callable[[list[Message]], int] = count_tokens
) -> Window:
    """Choose the messages that fit a token budget.

    The latest turn and the latest error stay even where they exceed the budget alone. An older error may take half of
    the budget: what is longer is cut in its middle, with a notice.

    Args:
        trajectory: The turns of an attempt after its task, oldest first.
        max_tokens: The budget.
        count: Counts the tokens of some messages.

    Example:
        >>> turns = [Message(role=role, content="x" * 400) for role in ("assistant", "user") * 3]
        >>> kept, left_out, start = window(turns, max_tokens=500)
        >>> len(kept), len(left_out), start
        (4, 2, 2)

    """
    starts = [i for i, message in enumerate(trajectory) if i == 0 or message["role"] == "assistant"]
    if not starts:
        return Window([], [], 0)
    units = [list(trajectory[a:b]) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    last = len(units) - 1
    wrong = max((i for i, unit in enumerate(units) if any(m.get("error") for m in unit)), default=last)
    error = shortened(units[wrong], max_tokens // 2, count, _cut) if wrong < last else []

    def shown(first: int) -> list[Message]:
        return [*(error if wrong < first else ()), *chain.from_iterable(units[first:])]

    first = newest(last, lambda i: count(shown(i)) <= max_tokens)
    left_out = chain.from_iterable(unit for i, unit in enumerate(units[:first]) if i != wrong)
    return Window(shown(first), list(left_out), starts[first])


def newest(last: int, fits: Callable[[int], bool]) -> int:
    """Return the first unit from which on all fit, or the last one when not even that does."""
    return 0 if fits(0) else bisect_left(range(last), True, lo=min(1, last), key=fits)


def notice(left_out: int, notes: str = "") -> str:
    """Say how much was left out, and what is noted about it, quoted: notes are data."""
    how_many = f"{left_out} earlier message{'s were' if left_out != 1 else ' was'} left out"
    return f"[{how_many}; in short:]\n> {' '.join(notes.split())}" if notes else f"[{how_many}]"


def shorten(text: str, chars: int) -> str:
    """Cut a text in its middle, and say so there."""
    chars = max(chars, SHORTEST_CHARS)
    if len(text) <= chars:
        return text
    half = (chars - _NOTICE_CHARS) // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters were cut here]\n{text[-half:]}"


def shorten_values(value: Any, share: float) -> Any:
    """Cut each text in a JSON-shaped value to a share of its length."""
    if isinstance(value, str):
        return shorten(value, int(len(value) * share))
    if isinstance(value, dict):
        return {key: shorten_values(each, share) for key, each in value.items()}
    return [shorten_values(each, share) for each in value] if isinstance(value, list) else value


def shortened(unit: list[M], max_tokens: int, count: Callable[[list[M]], int], cut: Callable[[M, float], M]) -> list[M]:
    """Cut the endless messages of a unit that is too long; `cut` leaves a share of a message's text."""
    if not unit or count(unit) <= max_tokens:
        return unit
    limit = max(0, max_tokens) // len(unit)
    sizes = [count([message]) for message in unit]
    # A tenth of the limit is left for what is not text.
    return [cut(m, 0.9 * limit / size) if size > limit else m for m, size in zip(unit, sizes, strict=True)]


def _cut(message: Message, share: float) -> Message:
    cut: Message = {**message, "content": shorten_values(message["content"], share)}
    if calls := message.get("tool_calls"):
        cut["tool_calls"] = [{**call, "args": shorten_values(call["args"], share)} for call in calls]
    return cut


def _chars(message: Message) -> int:
    calls = message.get("tool_calls")
    about = len(message["role"]) + len(message.get("tool_call_id", "")) + (len(repr(calls)) if calls else 0)
    return len(message["content"]) + about
