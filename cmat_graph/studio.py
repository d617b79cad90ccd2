"""The graphs that `langgraph.json` names, for LangGraph Studio and `langgraph dev`.

Environment variables choose who sits where, each as on the command line: `CMAT_ASSISTANT` (default `nano`),
`CMAT_CHECKER` and `CMAT_REFLECTOR` (default `none`), and `CMAT_HUMAN`, where a person takes part: `user`, `checker` or
`user,checker`. Memory and checkpoints are the server's own.

The debate's agents are `CMAT_DEBATE_BASE` (default `abacus`; any name as above), `CMAT_DEBATE_AGENTS` of them
(default 3) in `CMAT_DEBATE_ROUNDS` rounds (default 2), with the prompts `CMAT_DEBATE_PACK` (default `arithmetic`); with
`vote` in `CMAT_HUMAN` a person decides.

`"store": {"path": "cmat_graph.studio.store"}` in langgraph.json gives the server a `ChromaStore` for its memory,
whatever graphs it serves: in the folder `CMAT_MEMORY` (default `memory`), embedded by `CMAT_EMBEDDINGS` (default
`hashing`), with the Chroma server at `CMAT_CHROMA` (`HOST:PORT`) when there is one.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from langgraph.graph.state import CompiledStateGraph

from cmat_graph.debate.graph import create_debate_graph
from cmat_graph.graph import create_cmat_graph

if TYPE_CHECKING:
    from cmat_graph.memory.chroma import ChromaStore

_DEBATE = {"BASE": "abacus", "AGENTS": "3", "ROUNDS": "2", "PACK": "arithmetic"}


async def graph() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the graph off the event loop, which must not wait for weights."""
    return await asyncio.to_thread(_build)


async def debate() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the debate off the event loop."""
    return await asyncio.to_thread(_build_debate)


async def store() -> ChromaStore:
    """Open the long-term memory off the event loop; one for all of the server's threads."""
    return await asyncio.to_thread(_open)


@cache
def _open() -> ChromaStore:
    from cmat_graph.memory.chroma.opening import (
        open_store,  # brings chromadb, which a server with another store need not have
    )

    folder, server = os.environ.get("CMAT_MEMORY", "memory"), os.environ.get("CMAT_CHROMA")
    return open_store(folder, server=server, embeddings=os.environ.get("CMAT_EMBEDDINGS"))


@cache
def _build() -> CompiledStateGraph[Any, Any, Any, Any]:
    people: Any = [name for name in _people() if name != "vote"]
    return create_cmat_graph(
        os.environ.get("CMAT_ASSISTANT", "nano"), checker=_seat("CHECKER"), reflector=_seat("REFLECTOR"), human=people
    ).compile(name="cmat")


@cache
def _build_debate() -> CompiledStateGraph[Any, Any, Any, Any]:
    told = {name: os.environ.get(f"CMAT_DEBATE_{name}", usual) for name, usual in _DEBATE.items()}
    return create_debate_graph(
        told["BASE"],
        agents=int(told["AGENTS"]),
        rounds=int(told["ROUNDS"]),
        pack=told["PACK"],
        human="vote" in _people(),
    ).compile(name="debate")


def _people() -> list[str]:
    return [name.strip() for name in os.environ.get("CMAT_HUMAN", "").split(",") if name.strip()]


def _seat(name: str) -> str | None:
    chosen = os.environ.get(f"CMAT_{name}", "none")
    return None if chosen == "none" else chosen
