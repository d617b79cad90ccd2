"""Retry: puts the environment back to the start and opens the next attempt; only the lessons stay."""

from __future__ import annotations

from langgraph.runtime import Runtime

from cmat_graph.nodes.user import begin_attempt
from cmat_graph.state import CmatState, Node, RunContext, context_of


def make_retry() -> Node:
    """Build the node that starts the next attempt."""

    def retry(state: CmatState, runtime: Runtime[RunContext]) -> CmatState:
        session = context_of(runtime).session
        if session is not None:
            session.reset()
        return begin_attempt(state["attempt"] + 1)

    return retry
