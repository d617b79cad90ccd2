"""Chat models for the graph's nodes. `load_model` opens one by its name; `chat_model` holds the local ones."""

from __future__ import annotations

from cmat_graph.models.expert import ExpertChatModel
from cmat_graph.models.load import load_model

__all__ = ["ExpertChatModel", "load_model"]
