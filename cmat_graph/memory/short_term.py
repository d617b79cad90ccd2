"""Short-term memory: the trajectory of the current attempt, cut to what fits a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from cmat_graph.types import Message


def window(trajectory: Sequence[Message], *, max_chars: int) -> tuple[list[Message], int]:
    """Return the newest messages within a budget, and how many older ones were left out.

    What stays starts with an assistant's turn, so that roles alternate after the task. The last two messages (the
    latest action and what came of it) always stay, however long.
    """
    size = 0
    start = len(trajectory)
    for i in range(len(trajectory) - 1, -1, -1):
        size += len(trajectory[i]["content"])
        if size > max_chars and len(trajectory) - i > 2:
            break
        start = i
    while start > 0 and start < len(trajectory) and trajectory[start]["role"] != "assistant":
        start += 1
    return list(trajectory[start:]), start
