"""The trace database: meeting place one of the acting and the tuning half.

The names below load when they are first used, so that what only reads traces does not wait for LangChain.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmat_graph.traces.base import TraceStore
    from cmat_graph.traces.handler import TraceHandler
    from cmat_graph.traces.recorder import Recorder
    from cmat_graph.traces.redact import Redactor
    from cmat_graph.traces.sql import SQLTraceStore

_HOMES = {
    "Recorder": "recorder",
    "Redactor": "redact",
    "SQLTraceStore": "sql",
    "TraceHandler": "handler",
    "TraceStore": "base",
}

__all__ = ["Recorder", "Redactor", "SQLTraceStore", "TraceHandler", "TraceStore"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
