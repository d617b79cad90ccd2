"""The graph that `langgraph.json` names, for LangGraph Studio and `langgraph dev`.

Environment variables choose who sits where, each as on the command line: `CMAT_ASSISTANT` (default `nano`),
`CMAT_CHECKER` and `CMAT_REFLECTOR` (default `none`), and `CMAT_HUMAN`, where a person takes part: `user`, `checker` or
`user,checker`. Memory and checkpoints are the server's own.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from cmat_graph.graph import create_cmat_graph


async def graph() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the graph off the event loop, which must not wait for weights."""
    return await asyncio.to_thread(_build)


@cache
def _build() -> CompiledStateGraph[Any, Any, Any, Any]:
    people: Any = [name.strip() for name in os.environ.get("CMAT_HUMAN", "").split(",") if name.strip()]
    return create_cmat_graph(
        os.environ.get("CMAT_ASSISTANT", "nano"), checker=_seat("CHECKER"), reflector=_seat("REFLECTOR"), human=people
    ).compile(name="cmat")


def _seat(name: str) -> str | None:
    chosen = os.environ.get(f"CMAT_{name}", "none")
    return None if chosen == "none" else chosen
