"""The seats of the graph. Each `make_` function builds one node from what it needs; `Seat` lets LangGraph run it."""

from __future__ import annotations

from cmat_graph.nodes.approve import make_approve
from cmat_graph.nodes.assistant import make_assistant
from cmat_graph.nodes.checker import make_checker
from cmat_graph.nodes.execute import make_execute
from cmat_graph.nodes.reflect import make_reflect
from cmat_graph.nodes.retry import make_retry
from cmat_graph.nodes.summary import make_summary
from cmat_graph.nodes.user import make_user

__all__ = [
    "make_approve",
    "make_assistant",
    "make_checker",
    "make_execute",
    "make_reflect",
    "make_retry",
    "make_summary",
    "make_user",
]
