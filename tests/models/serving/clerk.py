"""What the serving tests share: a model that answers as a test says, adapters without weights, and a running server."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from cmat_graph.adapters import WEIGHTS, AdapterCard
from cmat_graph.errors import AdapterMismatchError, AdapterNotFoundError
from cmat_graph.models.serving.app import create_app
from cmat_graph.models.serving.running import listen, url_of


@dataclass
class Loaded:
    name: str
    card: AdapterCard
    key: str = ""
    bytes: int = 0


class Desk:
    """The part of an engine that the server sees, without a model."""

    base, base_hash, window = "nano", "abc", 512

    def __init__(self):
        self.loaded = {}

    def load_adapter(self, card, *, name=""):
        if card.base_hash != self.base_hash:
            raise AdapterMismatchError(f"adapter {card.id} was trained on {card.base}, not on nano")
        self.loaded[name or card.id] = Loaded(name or card.id, card)
        return name or card.id

    def unload_adapter(self, name):
        if self.loaded.pop(name, None) is None:
            raise AdapterNotFoundError(f"no adapter {name!r} is loaded")

    def adapters(self):
        return list(self.loaded.values())


class Clerk(BaseChatModel):
    """Answers with `reply`: an `AIMessage`, an error, or a function of messages and settings. Notes each call."""

    reply: object = AIMessage("Hello there, friend")
    pause: float = 0.0
    """Seconds before each word."""
    fail_after: int | None = None
    """Words after which a stream breaks off."""

    _engine: Desk = PrivateAttr(default_factory=Desk)
    _calls: list = PrivateAttr(default_factory=list)
    _given_up: list = PrivateAttr(default_factory=list)

    @property
    def engine(self):
        return self._engine

    @property
    def calls(self):
        return self._calls

    @property
    def given_up(self):
        """The calls that were cancelled."""
        return self._given_up

    @property
    def _llm_type(self):
        return "clerk"

    def _generate(self, messages, stop=None, run_manager=None, **settings):
        raise AssertionError("the server never blocks its loop")

    async def _agenerate(self, messages, stop=None, run_manager=None, **settings):
        message = self._answer(messages, stop, settings)
        with self._patience(settings):
            await asyncio.sleep(self.pause * len(message.text.split()))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(self, messages, stop=None, run_manager=None, **settings):
        message = self._answer(messages, stop, settings)
        with self._patience(settings):
            if thought := message.additional_kwargs.get("reasoning_content"):
                more = {"reasoning_content": thought}
                yield ChatGenerationChunk(message=AIMessageChunk("", additional_kwargs=more))
            for number, word in enumerate(re.findall(r"\S+\s*", message.text)):
                await asyncio.sleep(self.pause)
                if number == self.fail_after:
                    raise RuntimeError("secret detail")
                yield ChatGenerationChunk(message=AIMessageChunk(word))
            for index, call in enumerate(message.tool_calls):
                args = json.dumps(call["args"])
                head = tool_call_chunk(name=call["name"], args=args[:4], id=call["id"], index=index)
                rest = tool_call_chunk(args=args[4:], index=index)
                for piece in (head, rest):
                    yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[piece]))
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                "",
                usage_metadata=message.usage_metadata,
                response_metadata=message.response_metadata,
                chunk_position="last",
            )
        )

    def _answer(self, messages, stop, settings):
        self._calls.append((messages, settings | ({"stop": stop} if stop else {})))
        reply = self.reply(messages, settings) if callable(self.reply) else self.reply
        if isinstance(reply, BaseException):
            raise reply
        used = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "input_token_details": {"cache_read": 4}}
        metadata = {"finish_reason": "stop", "confidence": 0.75} | reply.response_metadata
        return reply.model_copy(update={"id": None, "usage_metadata": used, "response_metadata": metadata})

    @contextmanager
    def _patience(self, settings):
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._given_up.append(settings)
            raise


@contextmanager
def served(app):
    """Serve an app from a thread, on a real socket; yield its URL."""
    with listen("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            yield url_of(sock)
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def office(clerk, registry, **settings):
    with served(create_app(clerk, registry=registry, **settings)) as url:
        yield url


def register(registry, name, *, node="assistant", base_hash="abc"):
    """Put an adapter with a card and no real weights into a registry."""

    def write(folder):
        (folder / WEIGHTS).write_bytes(name.encode())
        return AdapterCard(name=name, node=node, base="nano", base_hash=base_hash)

    return registry.add(AdapterCard(name=name, node=node, base="nano"), write)


def eventually(true, seconds=5.0):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()
