"""One request on its way through an engine: what was asked, what was answered so far, and who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cmat_graph.adapters import AdapterCard
from cmat_graph.models.decoding.prefixes import Tokens
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.decoding.text import Text

LOOP_TOKENS = 96
"""A reply whose last tokens, this many, only repeat a piece of at most a third of them is going nowhere: it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model answered."""

    text: str
    """Without end token, stop string and special tokens."""
    raw: str
    """The same with special tokens: some models mark their tool calls with them."""
    tokens: list[int]
    """As they were drawn, the end token too."""
    logprobs: list[float]
    """Natural logarithm of each token's probability at temperature 1, among those that the constraint allowed."""
    input_tokens: int
    cached_tokens: int = 0
    """How many of the prompt's tokens were known from earlier requests."""
    output_tokens: int
    finish_reason: str
    """`stop` when the model ended its turn or a stop string came, `length` when the limit did, or the reply only
    repeated itself (`Sampling.ends_loops`)."""


class Pending:
    """A reply that is on its way."""

    def __init__(self, *, stream: bool = False) -> None:
        self.future: Future[Reply] = Future()
        self.cancelled = False
        self.owner: object = None
        """What is at work on it, kept alive until it has ended."""
        self._pieces: queue.SimpleQueue[str | None] | None = queue.SimpleQueue() if stream else None
        self._wake: Callable[[], object] | None = None

    @property
    def streams(self) -> bool:
        """Whether somebody wants the text as it comes."""
        return self._pieces is not None

    def tell(self, piece: str) -> None:
        """Hand out a piece of text. For the engine."""
        self._put(piece)

    def end(self, outcome: Reply | BaseException) -> None:
        """Hand out the reply, or why there is none. For the engine."""
        try:
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:  # it was given up meanwhile
            pass
        self.owner = None
        self._put(None)

    def cancel(self) -> None:
        """Give the request up: its row leaves at the next step, and `result` raises `CancelledError`."""
        self.cancelled = True
        self.future.cancel()
        self.owner = None
        self._put(None)

    def result(self, timeout: float | None = None) -> Reply:
        """Wait for the reply.

        Raises:
            EngineError: The engine could not answer.
            CancelledError: The request was given up.
            TimeoutError: It took longer than `timeout` seconds; the request goes on.

        """
        return self.future.result(timeout)

    async def aresult(self) -> Reply:
        """Await the reply; a cancelled task gives the request up.

        Raises:
            EngineError: The engine could not answer.

        """
        try:
            return await asyncio.wrap_future(self.future)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def pieces(self) -> Iterator[str]:
        """Yield the text, as in `Reply.raw`, as it comes; for requests submitted with `stream=True`.

        Leaving the loop early gives the request up. After the last piece, `result` is there.

        Raises:
            EngineError: The engine could not answer.

        """
        if self._pieces is None:
            raise ValueError("this request does not stream; submit it with stream=True")
        try:
            while (piece := self._pieces.get()) is not None:
                yield piece
            self.result()
        finally:
            if not self.future.done():
                self.cancel()

    async def apieces(self) -> AsyncIterator[str]:
        """Yield the text as it comes, on an event loop; see `pieces`."""
        if self._pieces is None:
            raise ValueError("this request does not stream; submit it with stream=True")
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(ready.set)

        self._wake = wake
        try:
            while True:
                ready.clear()
                while not self._pieces.empty():
                    if (piece := self._pieces.get()) is None:
                        await self.aresult()
                        return
                    yield piece
                await ready.wait()
        finally:
            self._wake = None
            if not self.future.done():
                self.cancel()

    def _put(self, piece: str | None) -> None:
        if self._pieces is not None:
            self._pieces.put(piece)
            if (wake := self._wake) is not None:
                wake()


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One request in the batch."""

    prompt: list[int]
    adapter: str
    sampling: Sampling
    pending: Pending
    text: Text | None = None
    """The reply as text so far; only where somebody streams it or a stop string may end it."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    filled: int = 0
    """How many tokens' keys and values are in the row's slot."""
    cached: int = 0
    """How many of them were known from others."""
    queued: bool = False
    """Whether it holds a place in the engine's queue."""
    held: bool = False
    """Whether it holds its adapter in memory."""
    finish_reason: str = ""
    error: Exception | None = None
    """Why it can have no reply."""
    ids: Tokens = field(init=False)
    """The prompt once more, to be compared quickly."""
    _dice: random.Random | None = None
    _rolled: float | None = None

    def __post_init__(self) -> None:
        self.ids = np.array(self.prompt, dtype=np.int32)

    @property
    def context(self) -> list[int]:
        """Prompt and reply so far."""
        return self.prompt + self.tokens

    @property
    def length(self) -> int:
        """Tokens of prompt and reply so far."""
        return len(self.prompt) + len(self.tokens)

    @property
    def known(self) -> Tokens:
        """The tokens in the row's slot."""
        return np.concatenate([self.ids, np.array(self.tokens, dtype=np.int32)])[: self.filled]

    def roll(self) -> float:
        """Return the next random number in [0, 1) of the row's own seed."""
        if self._dice is None:
            self._dice = random.Random(self.sampling.seed)
        if self._rolled is None:  # the same until a token was added: memory may run out in between
            self._rolled = self._dice.random()
        return self._rolled

    def fail(self, error: Exception) -> None:
        """End without a reply."""
        self.error, self.finish_reason = self.error or error, "error"

    def add(self, token: int, logprob: float, ends: frozenset[int]) -> None:
        """Append a token, and note whether the reply ends with it."""
        self._rolled = None
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in ends or (self.text is not None and self.text.add(token)):
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.sampling.max_tokens or (
            self.sampling.ends_loops and _goes_in_circles(self.tokens)
        ):
            self.finish_reason = "length"
        if self.text is not None and self.pending.streams and (piece := self.text.take(last=bool(self.finish_reason))):
            self.pending.tell(piece)


def _goes_in_circles(tokens: list[int]) -> bool:
    if len(tokens) < LOOP_TOKENS or len(tokens) % 8:
        return False
    tail = tokens[-LOOP_TOKENS:]
    return any(tail[period:] == tail[:-period] for period in range(1, LOOP_TOKENS // 3 + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAdapter:
    """An adapter that answers under a name."""

    name: str
    key: str
    card: AdapterCard
    bytes: int
    """What it takes in memory; 0 while it waits on disk."""


class ChatEngine(Protocol):
    """What a chat model needs of an engine. `Engine` is one; `cmat_graph.models.scripted.ScriptedEngine` another."""

    base: str
    base_hash: str
    window: int
    """Tokens a prompt and its reply may take together."""
    tokenizer: Any
    ends: frozenset[int]
    """Tokens that end a reply."""

    def encode(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """Render messages by the model's chat template, ready for a reply, and encode them."""

    def submit(
        self,
        prompt: list[int],
        *,
        adapter: str = "",
        sampling: Sampling = Sampling(),
        stream: bool = False,
        timeout: float | None = None,
    ) -> Pending:
        """Queue a prompt, waiting while the queue is full."""

    async def asubmit(
        self, prompt: list[int], *, adapter: str = "", sampling: Sampling = Sampling(), stream: bool = False
    ) -> Pending:
        """Queue a prompt, awaiting room in the queue."""

    def load_adapter(self, card: AdapterCard, *, name: str = "") -> str:
        """Load an adapter, let `name` mean it from now on, and return its key."""

    def unload_adapter(self, name: str) -> None:
        """Forget a name."""

    def adapters(self) -> Sequence[LoadedAdapter]:
        """Return what is loaded."""
