"""Base and adapters for others: over an OpenAI-compatible API, in this process, or on a vLLM server.

`app` is the server (extra `serve`); `adapters` loads and unloads adapters, wherever they are served.
"""

from __future__ import annotations

from cmat_graph.models.serving.adapters import AdapterServer, LocalAdapters, ServedAdapter, VLLMAdapters

__all__ = ["AdapterServer", "LocalAdapters", "ServedAdapter", "VLLMAdapters"]
