"""The graph that `langgraph.json` names, for LangGraph Studio and `langgraph dev`.

The assistant is chosen by the environment variable `CMAT_ASSISTANT` (default `nano`), the checker by `CMAT_CHECKER`
(default none), each as on the command line.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from cmat_graph.graph import create_cmat_graph
from cmat_graph.models import load_model


async def graph() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the graph off the event loop, which must not wait for weights; memory is the server's own store."""
    return await asyncio.to_thread(_build)


@cache
def _build() -> CompiledStateGraph[Any, Any, Any, Any]:
    checker = os.environ.get("CMAT_CHECKER", "none")
    judge: Any = (
        {"none": None, "probes": "probes"}.get(checker) if checker in ("none", "probes") else load_model(checker)
    )
    return create_cmat_graph(
        load_model(os.environ.get("CMAT_ASSISTANT", "nano")),
        checker=judge,
    ).compile(name="cmat")
