"""Traces that others recorded, read into the trace database: LangSmith and Langfuse exports, AgentInstruct."""

from __future__ import annotations

from cmat_graph.traces.imports.run import FORMS, Imported, import_traces
from cmat_graph.traces.imports.settings import ImportSettings

__all__ = ["FORMS", "ImportSettings", "Imported", "import_traces"]
