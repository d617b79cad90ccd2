"""What tells that a model is down, so that another may answer for it; all else is a mistake that should be seen."""

from __future__ import annotations

from cmat_graph.errors import EngineBusyError, EngineError, PromptTooLongError, ServerError

DOWN: tuple[type[Exception], ...] = (EngineError, EngineBusyError, ServerError, ConnectionError, TimeoutError)
"""Raised by models that are down, for now."""
FAILURES: tuple[type[Exception], ...] = (*DOWN, PromptTooLongError)
"""What a primary may raise and be answered for."""
_NAMED = {"APIConnectionError", "ConnectionError", "Timeout", "TransportError"}
"""How clients of model servers (OpenAI's, Anthropic's, requests, httpx, botocore) call it; none is imported here."""


def is_outage(exc: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    """Tell whether an exception is one of these, or a provider's way of saying that it cannot answer now.

    Example:
        >>> is_outage(ConnectionError("refused"), DOWN), is_outage(TypeError("no such argument"), DOWN)
        (True, False)

    """
    named = {kind.__name__ for kind in type(exc).__mro__}
    status = _status(exc)
    return isinstance(exc, kinds) or bool(named & _NAMED) or status in (408, 429) or 500 <= status < 600


def _status(exc: Exception) -> int:
    """Return the HTTP status that an exception tells; 0 where it tells none."""
    places = (exc, getattr(exc, "response", None))
    told = [getattr(place, name, None) for place in places for name in ("status_code", "code")]
    return next((each for each in told if isinstance(each, int)), 0)
