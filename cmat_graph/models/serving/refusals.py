"""Errors as OpenAI's API tells them."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

from cmat_graph.errors import (
    AdapterNotFoundError,
    CmatError,
    EngineBusyError,
    EngineError,
    ModelNotFoundError,
    PromptTooLongError,
    ServerError,
)

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refusal(HTTPException):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code
        self.param = param


def refusal(exc: Exception) -> Refusal:
    """Return how an exception is told to a client; what was not foreseen is for the log only."""
    if isinstance(exc, Refusal):
        return exc
    if isinstance(exc, HTTPException):  # Starlette's own: no such route, method not allowed
        return Refusal(exc.status_code, exc.detail, headers=dict(exc.headers or {}))
    said = str(exc)
    match exc:
        case PromptTooLongError():
            return Refusal(400, said, code="context_length_exceeded", param="messages")
        case AdapterNotFoundError() | ModelNotFoundError():
            return Refusal(404, said, code="model_not_found")
        case EngineBusyError():
            return busy(said)
        case EngineError() | ServerError():
            return Refusal(503, said, code="engine_error")
        case TimeoutError():
            return Refusal(504, said or "the model took too long", code="timeout")
        case CmatError() if isinstance(exc, ValueError):
            return Refusal(400, said)
    return Refusal(500, "the server failed; its log says why", code="internal_error")


def busy(said: str) -> Refusal:
    """Return the refusal of a server that has its hands full; clients try again by themselves."""
    return Refusal(429, said, code="engine_busy", headers={"Retry-After": "1"})


def error_object(told: Refusal) -> dict[str, Any]:
    """Lay out a refusal as OpenAI does."""
    kind = _KINDS.get(told.status_code, "server_error" if told.status_code >= 500 else "invalid_request_error")
    return {"error": {"message": told.detail, "type": kind, "param": told.param, "code": told.code}}
