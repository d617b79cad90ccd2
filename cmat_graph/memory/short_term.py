"""Short-term memory: the trajectory of the current attempt, cut to what fits a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from cmat_graph.types import Message


def window(trajectory: Sequence[Message], *, max_chars: int) -> tuple[list[Message], int]:
    """Return the newest messages within a budget, and how many older ones were left out.

    What stays starts with an assistant's turn, so that roles alternate after the task and each tool's message follows
    its call. The latest turn and all that came of it always stay, however long.
    """
    latest = max((i for i, turn in enumerate(trajectory) if turn["role"] == "assistant"), default=0)
    size = 0
    start = len(trajectory)
    for i in range(len(trajectory) - 1, -1, -1):
        size += _size(trajectory[i])
        if size > max_chars and i < latest:
            break
        start = i
    while 0 < start < len(trajectory) and trajectory[start]["role"] != "assistant":
        start += 1
    return list(trajectory[start:]), start


def _size(message: Message) -> int:
    return len(message["content"]) + sum(len(str(call["args"])) for call in message.get("tool_calls", ()))
