"""One base model in memory, many adapters on it, all requests answered together.

Requests come from any thread or event loop; a worker thread owns the model and takes all rows one token further each
step, whatever their adapters. The parts are in `decoding/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads collapse beside another busy process

try:
    import torch
    import transformers  # noqa: F401
except ImportError as exc:
    from cmat_graph.errors import MissingExtraError

    raise MissingExtraError.of("local", exc) from exc

from cmat_graph.adapters import AdapterCard
from cmat_graph.bases import BUNDLED, resolve_base
from cmat_graph.errors import ConfigurationError, EngineBusyError, EngineError, PromptTooLongError
from cmat_graph.models.decoding.batch import Batch
from cmat_graph.models.decoding.loading import load_base
from cmat_graph.models.decoding.prefixes import Prefixes
from cmat_graph.models.decoding.rows import LoadedAdapter, Pending, Reply, Row
from cmat_graph.models.decoding.sampling import Sampling, checked
from cmat_graph.models.decoding.shelf import Shelf
from cmat_graph.models.decoding.text import Text
from cmat_graph.models.decoding.worker import Worker

MiB = 1 << 20
TOKEN_CHARS = 24
"""Characters of a token at most, on the average of a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How much of everything an engine takes."""

    max_rows: int = 128
    """Requests that decode together."""
    max_waiting: int = 1024
    """Requests that wait for a place among them; beyond, `submit` waits."""
    max_rank: int = 128
    """Largest rank of an adapter."""
    adapter_bytes: int = 1024 * MiB
    """Memory for adapters; the one not used for longest leaves first."""
    prefix_bytes: int = 256 * MiB
    """Memory for what earlier requests left behind; 0 keeps nothing."""
    cache_bytes: int = 2048 * MiB
    """Memory for the keys and values of requests under way."""
    threads: int | None = None
    """Threads of torch; None takes one for a small model on a CPU, where more only wait for each other, and else leaves
    torch's own number."""

    def __post_init__(self) -> None:
        least = {
            "max_rows": 1,
            "max_waiting": 1,
            "max_rank": 1,
            "adapter_bytes": 0,
            "prefix_bytes": 0,
            "cache_bytes": 1,
        }
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ConfigurationError(f"{name} is at least {bound}, not {getattr(self, name)!r}")
        if self.threads is not None and self.threads < 1:
            raise ConfigurationError(f"threads is at least 1, not {self.threads!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What an engine has done since it began."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts' tokens, those that were known from earlier requests."""
    reply_tokens: int = 0
    steps: int = 0
    out_of_memory: int = 0
    """How often memory ran out, and a batch was made smaller."""


class Engine:
    """Answers prompts with one base model and its adapters. Thread-safe.

    Args:
        base: `nano`, a model folder, or a hub id.
        dtype: A torch dtype name; see `load_base`.
        device: A torch device; None takes the GPU if there is one.
        quantize: `int8` or `4bit`, on a GPU with bitsandbytes.
        settings: How much of everything it takes.

    Raises:
        ModelNotFoundError: There is no such model, or it cannot be loaded.
        ConfigurationError: The settings cannot work here.

    Example:
        >>> engine = Engine("nano")  # doctest: +SKIP
        >>> engine.submit(engine.encode([{"role": "user", "content": "Hi"}])).result().text  # doctest: +SKIP

    """

    def __init__(
        self,
        base: str,
        *,
        dtype: str | None = None,
        device: str | None = None,
        quantize: str | None = None,
        settings: EngineSettings = EngineSettings(),
    ) -> None:
        _mark_process()
        loaded = load_base(base, dtype=dtype, device=device, quantize=quantize)
        self.base = base
        self.base_hash = loaded.hash
        self.tokenizer = loaded.tokenizer
        self.window = loaded.window
        self.ends = loaded.ends
        self.settings = settings
        self._done = Stats()
        self._vocabulary = loaded.model.get_input_embeddings().weight.shape[0]
        self._special = frozenset(self.tokenizer.all_special_ids)
        self._encoding = threading.Lock()  # slow tokenizers are not made for threads
        self._room = threading.Semaphore(settings.max_waiting)
        batch = Batch(
            loaded.model,
            Prefixes(settings.prefix_bytes if loaded.mixes_lengths else 0),
            pad_token=self.tokenizer.pad_token_id or 0,
            ends=self.ends,
        )
        with torch.inference_mode():
            batch.check()
        self._worker = Worker(
            batch,
            max_rows=settings.max_rows if loaded.mixes_lengths else 1,
            cache_bytes=settings.cache_bytes,
            column_bytes=loaded.column_bytes,
            finish=self._finish,
            came=lambda row: self._room.release(),
            ended=self._ended,
            threads=settings.threads or (1 if loaded.is_small else None),
            name=f"engine {base}",
        )
        self._shelf = Shelf(
            base=base,
            base_hash=self.base_hash,
            model=loaded.model,
            put=batch.add_adapter,
            take=batch.remove_adapter,
            do=self._worker.do,
            in_worker=lambda: self._worker.is_this_thread,
            held=lambda: batch.adapter_bytes,
            budget=settings.adapter_bytes,
            max_rank=settings.max_rank,
        )

    # -- requests -----------------------------------------------------------------------------------------------

    def encode(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """Render messages by the model's chat template, ready for a reply, and encode them.

        Args:
            messages: Dicts with `role` and `content`, as chat templates take them.
            **template: What else the template takes, such as `tools`.

        Raises:
            PromptTooLongError: The prompt is far longer than the window.

        """
        text = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, tokenize=False, **template
        )
        if len(text) > self.window * TOKEN_CHARS:  # encoding it would take seconds, only to be refused
            raise PromptTooLongError(
                f"the prompt of {len(text):,} characters fills the window of {self.window:,} tokens many times; "
                "shorten the trajectory"
            )
        if self.tokenizer.is_fast:
            return list(self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
        with self._encoding:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def submit(
        self,
        prompt: list[int],
        *,
        adapter: str = "",
        sampling: Sampling = Sampling(),
        stream: bool = False,
        timeout: float | None = None,
    ) -> Pending:
        """Queue a prompt.

        Args:
            prompt: Its tokens.
            adapter: Name or key of the adapter that answers; empty for the bare base.
            sampling: How the reply is drawn.
            stream: Whether the reply's text is wanted as it comes.
            timeout: Seconds to wait while the queue is full; None waits for ever, 0 not at all.

        Raises:
            PromptTooLongError: The prompt leaves no room for a reply.
            AdapterNotFoundError: No such adapter was loaded.
            EngineBusyError: The queue stayed full.

        """
        row = self._row(prompt, adapter, sampling, stream=stream)
        with self._sending(row):
            if row.adapter:
                self._shelf.hold(row.adapter)
                row.held = True
            if self._worker.is_this_thread:
                timeout = 0  # in a callback of a request nobody else can make room
            if not (self._room.acquire(timeout=timeout) if timeout else self._room.acquire(blocking=timeout is None)):
                raise EngineBusyError(
                    f"{self.settings.max_waiting} requests wait already; ask again later, or raise max_waiting"
                )
            row.queued = True
        return row.pending

    async def asubmit(
        self, prompt: list[int], *, adapter: str = "", sampling: Sampling = Sampling(), stream: bool = False
    ) -> Pending:
        """Queue a prompt, awaiting room in the queue; see `submit`."""
        row = self._row(prompt, adapter, sampling, stream=stream)
        with self._sending(row):
            if row.adapter:
                row.held = self._shelf.hold(row.adapter, wait=False) or await self._held_in_a_thread(row.adapter)
            while not self._room.acquire(blocking=False):
                await asyncio.sleep(0.005)
            row.queued = True
        return row.pending

    async def _held_in_a_thread(self, key: str) -> bool:
        """Read an adapter from disk without holding up the event loop."""
        holding = asyncio.get_running_loop().run_in_executor(None, self._shelf.hold, key)
        try:
            return await asyncio.shield(holding)
        except asyncio.CancelledError:
            holding.add_done_callback(lambda done: None if done.exception() else self._shelf.let_go(key))
            raise

    def _row(self, prompt: list[int], adapter: str, sampling: Sampling, *, stream: bool) -> Row:
        key = self._shelf.key_of(adapter)
        if not prompt:
            raise PromptTooLongError("the prompt is empty; give at least one token")
        room = self.window - self._shelf.before(key) - len(prompt)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt of {len(prompt):,} tokens fills the window of {self.window:,}; shorten the trajectory"
            )
        sampling = checked(sampling)._replace(max_tokens=max(1, min(sampling.max_tokens, room)))
        text = Text(self.tokenizer, sampling.stop) if stream or sampling.stop else None
        row = Row(prompt=prompt, adapter=key, sampling=sampling, pending=Pending(stream=stream), text=text)
        if row.ids.min() < 0 or row.ids.max() >= self._vocabulary:
            raise ConfigurationError(
                f"the prompt holds tokens outside 0 to {self._vocabulary - 1}; encode it with encode()"
            )
        return row

    @contextlib.contextmanager
    def _sending(self, row: Row) -> Iterator[None]:
        """Hand a row to the worker at the end; when that fails, give back what it holds."""
        try:
            yield
            self._worker.send(row)
        except BaseException:
            if row.queued:
                self._room.release()
            if row.held:
                self._shelf.let_go(row.adapter)
            raise

    # -- adapters -----------------------------------------------------------------------------------------------

    def load_adapter(self, card: AdapterCard, *, name: str = "") -> str:
        """Load an adapter, and let a name mean it from now on; requests under way finish on what it meant before.

        Args:
            card: The adapter.
            name: The name; by default the card's `node/name`.

        Returns:
            Its key, which means this version for good: two of one name but other weights have two keys.

        Raises:
            AdapterMismatchError: It was trained on another base.
            AdapterNotFoundError: Its files cannot be read.
            UnsupportedAdapterError: A kind or a size that the engine does not run.

        """
        return self._shelf.load(card, name)

    def unload_adapter(self, name: str) -> None:
        """Forget a name; its weights leave once no request needs them.

        Raises:
            AdapterNotFoundError: No such name.

        """
        self._shelf.unload(name)

    def adapters(self) -> list[LoadedAdapter]:
        """Return the names that answer, in the order they came."""
        return self._shelf.list()

    # -- replies ------------------------------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """What the engine has done since it began."""
        return replace(self._done, steps=self._worker.steps, out_of_memory=self._worker.out_of_memory)

    @property
    def closed(self) -> bool:
        """Whether it answers no more."""
        return self._worker.closed

    def close(self) -> None:
        """Stop the worker; requests that wait fail. The weights leave with the last reference to the engine."""
        self._worker.close()

    def _ended(self, row: Row) -> None:
        if row.adapter:
            self._shelf.let_go(row.adapter)

    def _finish(self, row: Row) -> None:
        done = self._done
        self._done = replace(
            done,
            requests=done.requests + 1,
            prompt_tokens=done.prompt_tokens + len(row.prompt),
            cached_tokens=done.cached_tokens + row.cached,
            reply_tokens=done.reply_tokens + len(row.tokens),
        )
        row.pending.end(self._read(row))

    def _read(self, row: Row) -> Reply:
        drawn = row.tokens[:-1] if row.tokens[-1] in self.ends else row.tokens
        if row.text is not None:
            row.text.take(last=True)
            raw = row.text.text
        else:
            raw = self._decode(drawn, skip=False)
        text = raw if self._special.isdisjoint(drawn) else self._decode(drawn, skip=True)
        for mark in row.sampling.stop:
            text = text.split(mark, 1)[0] if mark else text
        return Reply(
            text=text,
            raw=raw,
            tokens=row.tokens,
            logprobs=row.logprobs,
            input_tokens=len(row.prompt),
            cached_tokens=row.cached,
            output_tokens=len(row.tokens),
            finish_reason=row.finish_reason,
        )

    def _decode(self, tokens: list[int], *, skip: bool) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=skip, clean_up_tokenization_spaces=False))


_engines: dict[tuple[Any, ...], Engine] = {}
_engines_lock = threading.Lock()
_process = 0  # the process whose torch has run a model


def _mark_process() -> None:
    """Refuse to go on after a fork: torch's thread pools do not live through one, a model in the child hangs."""
    global _process
    if _process not in (0, os.getpid()):
        raise EngineError(
            "the process that forked this one had loaded a model, and torch cannot run one in the child; "
            'start it with multiprocessing.get_context("spawn"), or load models after the fork only'
        )
    _process = os.getpid()


def shared_engine(
    base: str, *, dtype: str | None = None, device: str | None = None, quantize: str | None = None
) -> Engine:
    """Return the process's engine of a base: all nodes of all graphs share one copy of its weights."""
    place = str(Path(resolve_base(base)).resolve()) if base in BUNDLED or Path(base).is_dir() else base
    key = (place, dtype, device, quantize)
    with _engines_lock:
        if key not in _engines or _engines[key].closed:
            _engines[key] = Engine(base, dtype=dtype, device=device, quantize=quantize)
        return _engines[key]


def _forget() -> None:
    """In a forked child no worker runs, and the lock may be held by a thread that is not there."""
    global _engines_lock
    _engines_lock = threading.Lock()
    _engines.clear()


os.register_at_fork(after_in_child=_forget)
