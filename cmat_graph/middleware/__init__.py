"""CMAT for an agent you already have: `create_agent(..., middleware=[CMATMiddleware("openai:gpt-5-mini")])`."""

from __future__ import annotations

from cmat_graph.errors import MissingExtraError

try:
    import langchain.agents.middleware  # noqa: F401
except ImportError as exc:
    raise MissingExtraError.of("agents", exc) from exc

from cmat_graph.middleware.agent import CMATMiddleware
from cmat_graph.nodes.attempt import NO_ANSWER

__all__ = ["NO_ANSWER", "CMATMiddleware"]
