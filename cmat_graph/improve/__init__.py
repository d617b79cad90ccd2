"""Self-improvement in rounds: play with the current adapters, harvest, train, gate, swap. Goes on after any crash."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cmat_graph.improve.settings import ImproveSettings
from cmat_graph.improve.state import Improved, Point

if TYPE_CHECKING:
    from cmat_graph.improve.rounds import improve

__all__ = ["ImproveSettings", "Improved", "Point", "improve"]


def __getattr__(name: str) -> Any:
    if name != "improve":  # loads when it is used, so that `cmat-graph improve --help` does not wait for LangGraph
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.rounds").improve
