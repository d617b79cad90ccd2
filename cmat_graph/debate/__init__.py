"""Debates: agents answer, examine each other's answers, and vote.

`run_debates` plays whole question sets in large batches, `create_debate_graph` is the same debate as a LangGraph graph,
`SocietyChatModel` puts one behind a chat model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cmat_graph.debate.many import run_debates, score_debate
from cmat_graph.debate.prompts import PACKS, PromptPack, prompt_pack
from cmat_graph.debate.recording import read_debate
from cmat_graph.debate.records import Debate, Said, Turn
from cmat_graph.debate.rounds import DebateSettings, Rules
from cmat_graph.debate.seats import Seats

if TYPE_CHECKING:
    from cmat_graph.debate.graph import create_debate_graph
    from cmat_graph.debate.model import SocietyChatModel

__all__ = [
    "PACKS",
    "Debate",
    "DebateSettings",
    "PromptPack",
    "Rules",
    "Said",
    "Seats",
    "SocietyChatModel",
    "Turn",
    "create_debate_graph",
    "prompt_pack",
    "read_debate",
    "run_debates",
    "score_debate",
]
_LATER = {"create_debate_graph": "graph", "SocietyChatModel": "model"}  # they bring LangGraph


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
