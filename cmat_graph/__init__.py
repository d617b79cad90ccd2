"""CMAT for LangGraph: act, check, reflect, retry; record; distil; put the small model in the node's place.

The names below load when they are first used, so that `cmat-graph --help` does not wait for LangGraph.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmat_graph.adapters import AdapterCard, AdapterRegistry
    from cmat_graph.errors import CmatError
    from cmat_graph.evaluation import evaluate
    from cmat_graph.graph import create_cmat_graph
    from cmat_graph.middleware import CMATMiddleware
    from cmat_graph.rollout import run_episode, run_episodes
    from cmat_graph.state import RunContext
    from cmat_graph.types import Budget, Episode, Finding, Task

__version__ = "0.2.0"

_HOMES = {
    "AdapterCard": "adapters",
    "AdapterRegistry": "adapters",
    "Budget": "types",
    "CMATMiddleware": "middleware",
    "CmatError": "errors",
    "Episode": "types",
    "Finding": "types",
    "RunContext": "state",
    "Task": "types",
    "create_cmat_graph": "graph",
    "evaluate": "evaluation",
    "run_episode": "rollout",
    "run_episodes": "rollout",
}

__all__ = [
    "AdapterCard",
    "AdapterRegistry",
    "Budget",
    "CMATMiddleware",
    "CmatError",
    "Episode",
    "Finding",
    "RunContext",
    "Task",
    "__version__",
    "create_cmat_graph",
    "evaluate",
    "run_episode",
    "run_episodes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
