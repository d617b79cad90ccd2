"""Retry: puts the environment back to the start and opens the next attempt; only the lessons stay."""

from __future__ import annotations

from cmat_graph.nodes.attempt import begin_attempt, bring_to
from cmat_graph.nodes.seat import Flow, Node, Turn


def make_retry() -> Node:
    """Build the node that starts the next attempt."""

    def retry(turn: Turn) -> Flow:
        number = turn.loop["attempt"] + 1
        yield from bring_to(turn, [], afresh=True)
        turn.loop = {**turn.loop, "attempt": number}
        turn.emit("attempt", lessons=turn.loop["lessons"])
        return {"cmat": begin_attempt(number)}

    return retry
