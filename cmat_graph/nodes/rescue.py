"""Rescue: what holds for every node when a run breaks or comes back.

Once an attempt was made, its answer stands when a node breaks; before that the error is raised, and the run can be
resumed where it broke. What is resumed is recorded in the episode that it belongs to.

LangGraph 1.2.22 has error handlers for this, but marks their node as done: what they raise cannot be resumed, and an
invalid answer to an interrupt, which only asks for another one, reaches them as a failure.
"""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.errors import GraphBubbleUp, is_invalid_resume
from langgraph.types import RetryPolicy

from cmat_graph.errors import CmatError, EnvironmentFailure, EpisodeFailure
from cmat_graph.nodes.attempt import best_message, bring_to, record_end, session_actions
from cmat_graph.nodes.seat import Do, Flow, Node, Turn
from cmat_graph.state import Loop


def rescued(node: Node, policy: RetryPolicy | None = None) -> Node:
    """Let a node that breaks end the episode with the best attempt so far.

    Args:
        node: The node.
        policy: How LangGraph repeats it; only what its last try raises ends the episode.

    """

    def guarded(turn: Turn) -> Flow:
        if turn.loop.get("stopped") == "error":  # a node before this one broke, and its edge leads here
            return {"cmat": {"next": "__end__"}}
        recorder = turn.recorder
        begun = turn.loop.get("episode", "")
        if recorder is not None and begun and begun != recorder.episode_id:  # by an earlier run
            yield Do(recorder.go_on, begun)
        try:
            return (yield from node(turn))
        except Exception as exc:
            best = turn.loop.get("best")
            if not _is_failure(exc) or _is_repeated(exc, policy, turn):
                raise
            told = f"{type(exc).__name__}: {exc}"
            if turn.loop.get("stopped", "running") != "running":  # the end stands; only its last lesson is lost
                return {"cmat": {"error": told, "next": "__end__"}}
            if best is None or not best["answer"]:
                raise
            if not isinstance(exc, EnvironmentFailure):
                yield from bring_to(turn, session_actions(best["done_so_far"]))
            yield from record_end(turn, "error", best["answer"], told)
            turn.emit("end", stopped="error", answer=best["answer"])
            change: Loop = {
                "stopped": "error",
                "error": told,
                "answer": best["answer"],
                "draft": None,
                "next": "__end__",
                "spent": turn.spent,
            }
            return {"cmat": change, "messages": [best_message(best)]}

    return guarded


def _is_failure(exc: Exception) -> bool:
    """Tell a failure from LangGraph's own ways out of a node, and from a mistake in how the graph was built."""
    if isinstance(exc, GraphBubbleUp) or is_invalid_resume(exc):
        return False
    return isinstance(exc, EpisodeFailure) or not isinstance(exc, CmatError)


def _is_repeated(exc: Exception, policy: RetryPolicy | None, turn: Turn) -> bool:
    info = turn.runtime.execution_info
    if policy is None or info is None or info.node_attempt >= policy.max_attempts:
        return False
    wanted = policy.retry_on
    if isinstance(wanted, Sequence):
        return isinstance(exc, tuple(wanted))
    return isinstance(exc, wanted) if isinstance(wanted, type) else bool(wanted(exc))
