"""Answer chat completions: whole or in pieces, several choices at once, and no longer than somebody listens."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cmat_graph.errors import EngineError
from cmat_graph.models.serving.refusals import busy, error_object, refusal
from cmat_graph.models.serving.replies import Answer, StreamedChoice
from cmat_graph.models.serving.requests import ChatRequest

logger = logging.getLogger(__name__)

T = TypeVar("T")
Event = AIMessageChunk | Exception | None
"""A piece of a choice, or why it failed, or its end."""


class Completions:
    """The chat model behind the route, and how many replies it may be writing at once."""

    def __init__(self, agent: BaseChatModel, *, most: int) -> None:
        self._agent = agent
        self._most = most
        self._running = 0

    async def answer(self, request: Request, asked: ChatRequest, model: str) -> Response:
        """Answer a request whole, or as a stream of events."""
        if not asked.stream:
            with self._seats(asked.choices):
                return await _while_connected(request, self._whole(asked, model))
        events = self._stream(asked, model)
        first = await _while_connected(request, anext(events))  # what fails before the first piece is an HTTP error
        return _EventStream(first, events)

    async def _whole(self, asked: ChatRequest, model: str) -> Response:
        messages = asked.to_langchain()
        calls = [self._agent.ainvoke(messages, **self._settings(asked, model, i)) for i in range(asked.choices)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        try:
            replies: list[AIMessage] = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return to_json(Answer(asked.model).completion(replies))

    async def _stream(self, asked: ChatRequest, model: str) -> AsyncGenerator[str]:
        answer = Answer(asked.model)
        choices = [StreamedChoice(index) for index in range(asked.choices)]
        with self._seats(len(choices)):
            async with aclosing(self._events(asked, model)) as events:
                begun = False
                async for index, chunk in events:
                    if not begun:
                        begun = True
                        for choice in choices:
                            yield _line(answer.chunk(choice.begin()))
                    choice = choices[index]
                    for piece in choice.pieces(chunk) if chunk is not None else [choice.end()]:
                        yield _line(answer.chunk(piece))
        if asked.stream_options is not None and asked.stream_options.include_usage:
            yield _line(answer.last_chunk([choice.usage for choice in choices]))
        yield "data: [DONE]\n\n"

    async def _events(self, asked: ChatRequest, model: str) -> AsyncGenerator[tuple[int, AIMessageChunk | None]]:
        """Yield the pieces of all choices as they come; None ends a choice. Leaving gives all of them up."""
        told: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        messages = asked.to_langchain()

        async def tell(index: int) -> None:
            end: Event = EngineError("the engine gave the request up; try again")
            try:
                async for chunk in self._agent.astream(messages, **self._settings(asked, model, index)):
                    told.put_nowait((index, chunk))
                end = None
            except Exception as exc:
                end = exc
            finally:  # also when cancelled, be it by the engine
                told.put_nowait((index, end))

        tasks = [asyncio.create_task(tell(index)) for index in range(asked.choices)]
        try:
            left = asked.choices
            while left:
                index, event = await told.get()
                if isinstance(event, Exception):
                    raise event
                left -= event is None
                yield index, event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _settings(self, asked: ChatRequest, model: str, choice: int) -> dict[str, Any]:
        return {"model": model} | asked.settings(choice)

    @contextmanager
    def _seats(self, wanted: int) -> Iterator[None]:
        if self._running and self._running + wanted > self._most:
            raise busy(f"{self._running} replies are being written already; try again in a moment")
        self._running += wanted
        try:
            yield
        finally:
            self._running -= wanted


class _EventStream(StreamingResponse):
    """Server-sent events; when the client is gone, so is the work."""

    def __init__(self, first: str, events: AsyncGenerator[str]) -> None:
        super().__init__(_told(first, events), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _told(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield events; a failure on the way becomes the last of them, for the status was sent long ago."""
    yield first
    try:
        async for event in events:
            yield event
    except Exception as exc:
        logger.warning("a stream broke off", exc_info=exc)
        yield _line(error_object(refusal(exc)))


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await work, and give it up when the client goes away first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        if task.cancelled():
            raise EngineError("the engine gave the request up; try again")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def to_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON; in ASCII, for a model may write halves of characters that no encoding takes."""
    return Response(json.dumps(value), status, headers, media_type="application/json")


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"
