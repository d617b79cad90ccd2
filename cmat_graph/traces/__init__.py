"""The trace database: meeting place one of the acting and the tuning half."""

from __future__ import annotations

from cmat_graph.traces.base import TraceStore
from cmat_graph.traces.handler import TraceHandler
from cmat_graph.traces.recorder import Recorder
from cmat_graph.traces.redact import Redactor
from cmat_graph.traces.sql import SQLTraceStore

__all__ = ["Recorder", "Redactor", "SQLTraceStore", "TraceHandler", "TraceStore"]
