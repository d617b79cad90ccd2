"""An OpenAI-compatible server over a `TinyAgent`: any OpenAI client, and any graph elsewhere, uses its adapters."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as exc:
    from cmat_graph.errors import MissingExtraError

    raise MissingExtraError.of("serve", exc) from exc

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.errors import AdapterNotFoundError, CmatError
from cmat_graph.models.serving.catalogue import Catalogue
from cmat_graph.models.serving.completions import Completions, to_json
from cmat_graph.models.serving.refusals import Refusal, error_object, refusal
from cmat_graph.models.serving.requests import ChatRequest, LoadRequest, UnloadRequest, read

if TYPE_CHECKING:
    from cmat_graph.models.chat_model import TinyAgent

logger = logging.getLogger(__name__)

_LOCAL = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


def create_app(
    agent: TinyAgent,
    *,
    registry: AdapterRegistry | str | os.PathLike[str] = "adapters",
    api_key: str | None = None,
    max_replies: int = 256,
    max_bytes: int = 8 * 2**20,
) -> Starlette:
    """Build the server's ASGI app.

    Args:
        agent: Answers; its settings hold where a request says nothing.
        registry: Where adapters may be loaded from, and from nowhere else.
        api_key: What clients must show. Without one, only requests addressed to this machine by a local name are
            answered, so that no web page reaches the server under a name of its own.
        max_replies: How many replies may be under way; more are told to come back (429).
        max_bytes: The largest request.

    Example:
        >>> import uvicorn  # doctest: +SKIP
        >>> uvicorn.run(create_app(TinyAgent.load("nano"), registry="adapters/"))  # doctest: +SKIP

    """
    registry = registry if isinstance(registry, AdapterRegistry) else AdapterRegistry(registry)
    catalogue = Catalogue(agent.engine, registry)
    completions = Completions(agent, most=max_replies)

    async def chat(request: Request) -> Response:
        asked = await read(request, ChatRequest, max_bytes)
        model = await asyncio.to_thread(catalogue.find, asked.model)
        return await completions.answer(request, asked, model)

    async def models(request: Request) -> Response:
        return to_json({"object": "list", "data": await asyncio.to_thread(catalogue.list)})

    async def model(request: Request) -> Response:
        name = request.path_params["model"]
        for each in await asyncio.to_thread(catalogue.list):
            if each["id"] == name:
                return to_json(each)
        raise AdapterNotFoundError(f"the model {name!r} does not exist; GET /v1/models lists those that do")

    async def load(request: Request) -> Response:
        asked = await read(request, LoadRequest, max_bytes)
        await asyncio.to_thread(catalogue.load, asked.lora_name, asked.lora_path, again=asked.load_inplace)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    async def unload(request: Request) -> Response:
        asked = await read(request, UnloadRequest, max_bytes)
        await asyncio.to_thread(catalogue.unload, asked.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    async def health(request: Request) -> Response:
        return Response()

    routes = [
        Route("/v1/chat/completions", _refusing(chat), methods=["POST"]),
        Route("/v1/models", _refusing(models)),
        Route("/v1/models/{model:path}", _refusing(model)),
        Route("/v1/load_lora_adapter", _refusing(load), methods=["POST"]),
        Route("/v1/unload_lora_adapter", _refusing(unload), methods=["POST"]),
        Route("/health", health),
    ]
    guard = Middleware(_KeyGuard, api_key=api_key) if api_key else Middleware(_HostGuard)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: _no_route})
    app.state.base = catalogue.base
    return app


class _KeyGuard:
    """Lets through only who shows the key; `/health` is for everybody."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._wanted = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            scheme, _, shown = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(shown.strip(), self._wanted):
                asks = {"WWW-Authenticate": "Bearer"}
                no = Refusal(401, "wrong API key, or none", code="invalid_api_key", headers=asks)
                await _told(no)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _HostGuard:
    """Lets through only requests addressed to this machine by a local name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _LOCAL.fullmatch(dict(scope["headers"]).get(b"host", b"")):
            no = Refusal(400, "without a key, this server answers to localhost alone; start it with CMAT_API_KEY set")
            await _told(no)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusing(route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Let a route's errors be answers. None may reach Starlette: its own way with them ends the connection."""

    async def answer(request: Request) -> Response:
        try:
            return await route(request)
        except ClientDisconnect:
            return Response(status_code=499)  # nginx's "client closed request"; nobody reads it
        except Exception as exc:
            told = refusal(exc)
            if told.status_code >= 500:
                unforeseen = None if isinstance(exc, CmatError) else exc
                logger.error("a request was not answered: %s", exc, exc_info=unforeseen)
            return _told(told)

    return answer


async def _no_route(request: Request, exc: Exception) -> Response:
    return _told(refusal(exc))


def _told(told: Refusal) -> Response:
    return to_json(error_object(told), told.status_code, dict(told.headers or {}))
