"""The thread that owns a model: it lets requests join and leave the batch, and takes all of them one token further."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from cmat_graph.errors import EngineError
from cmat_graph.models.decoding.batch import PIECE, Batch
from cmat_graph.models.decoding.rows import Row

logger = logging.getLogger(__name__)

QUIET_SECONDS = 0.002
"""An idle worker waits this long for company before it starts."""
LEAST_PIECE = 32
"""Shorter pieces of a prompt would not help when memory runs out."""
FIRST_FILLS = 4
"""Prompts are read this often before the first step; beside rows that decode once a step."""
PATIENCE = 256
"""Steps that must go well after memory ran out, before more is tried again."""
KEPT_BYTES = 64 << 20
"""An idle worker keeps buffers up to this."""


@dataclass(slots=True)
class Job:
    """Something to be done between two steps."""

    work: Callable[[], None]
    done: Future[None] = field(default_factory=Future)


Arrivals = queue.SimpleQueue[Row | Job | None]


class Worker:
    """Serve a batch from a thread of its own.

    Args:
        batch: The rows in flight.
        max_rows: How many may be.
        cache_bytes: Memory for their keys and values.
        column_bytes: What one token's keys and values take.
        finish: Called with each row that has its reply.
        came: Called with each row that leaves the queue.
        ended: Called with each row that is over, with or without a reply.
        threads: Threads of torch; None leaves its own number.
        name: The thread's name.

    """

    def __init__(
        self,
        batch: Batch,
        *,
        max_rows: int,
        cache_bytes: int,
        column_bytes: int,
        finish: Callable[[Row], None],
        came: Callable[[Row], None],
        ended: Callable[[Row], None],
        threads: int | None,
        name: str,
    ) -> None:
        self.batch = batch
        self.steps = 0
        self.out_of_memory = 0
        self._max_rows, self._row_limit = max_rows, max_rows
        self._cache_bytes, self._column_bytes = cache_bytes, column_bytes
        self._finish, self._came, self._ended = finish, came, ended
        self._arrivals: Arrivals = queue.SimpleQueue()
        self._waiting: deque[Row] = deque()
        self._lock = threading.Lock()
        self.closed = False
        self._process = os.getpid()
        self._good_steps = 0
        self._thread = threading.Thread(
            target=_work, args=(weakref.ref(self), self._arrivals, threads), name=name, daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._arrivals.put, None)

    # -- from any thread ----------------------------------------------------------------------------------------

    def send(self, item: Row | Job) -> None:
        """Hand something to the thread.

        Raises:
            EngineError: It was closed.

        """
        with self._lock:
            if self._process != os.getpid():
                raise EngineError(
                    "this engine belongs to the process that forked this one; "
                    "start processes with spawn, or load models after the fork"
                )
            if self.closed:
                raise _gone()
            if isinstance(item, Row):
                item.pending.owner = self
            self._arrivals.put(item)

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is the worker's own thread."""
        return threading.current_thread() is self._thread

    def do(self, work: Callable[[], None], wait: bool = True) -> None:
        """Have the thread do something between two steps, and wait for it if wanted."""
        if self.is_this_thread:
            work()
            return
        job = Job(work)
        self.send(job)
        if wait:
            job.done.result()

    def close(self) -> None:
        """Stop the thread; requests that wait fail."""
        with self._lock:
            self.closed = True
            self._arrivals.put(None)
        if not self.is_this_thread and self._process == os.getpid():
            self._thread.join()

    # -- the thread itself --------------------------------------------------------------------------------------

    def serve(self, item: Row | Job | None) -> bool:
        """Take what has arrived, and work until nothing is left to do; tell whether to go on."""
        if isinstance(item, Row):
            time.sleep(QUIET_SECONDS)
        try:
            self._take(item)
            while True:
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._take(self._arrivals.get_nowait())
                if self.closed:
                    self._give_up(_gone())
                    return False
                if not self._waiting and not self.batch.rows:
                    return True
                self._advance()
        except Exception as exc:  # nobody may wait for ever for a thread that died
            logger.exception("the engine failed; its requests are given up")
            self._give_up(_broken(exc))
            return True

    def _take(self, item: Row | Job | None) -> None:
        if isinstance(item, Row):
            self._waiting.append(item)
        elif item is not None:
            try:
                item.work()
            except BaseException as exc:  # handed to whoever waits
                item.done.set_exception(exc)
            else:
                item.done.set_result(None)

    def _give_up(self, error: EngineError) -> None:
        with self._lock:
            rows = [*self.batch.rows, *self._waiting]
            while True:
                try:
                    item = self._arrivals.get_nowait()
                except queue.Empty:
                    break
                if isinstance(item, Row):
                    rows.append(item)
                elif item is not None:
                    item.done.set_exception(error)
        self.batch.clear()
        self._waiting.clear()
        for row in rows:
            self._fail(row, error)

    def _advance(self) -> None:
        """Let rows come, read prompts, go one step, and hand out what is done."""
        batch = self.batch
        for row in [row for row in batch.rows if row.pending.cancelled]:
            batch.leave(row)
            self._over(row)
        if any(row.pending.cancelled for row in self._waiting):
            self._waiting, waited = deque(), self._waiting
            for row in waited:
                self._over(row) if row.pending.cancelled else self._waiting.append(row)
        self._admit()
        for _ in range(1 if batch.is_decoding else FIRST_FILLS):  # those that come together go on together
            if batch.is_filling:
                self._fill()
        if batch.is_decoding:
            self.steps += 1
            self._guarded(batch.step, [row for row in batch.rows if row.tokens], self._decode_less)
            self._hand_out()
        self._recover()
        if not batch.rows and batch.cache.bytes > KEPT_BYTES:
            batch.cache.release()

    def _fill(self) -> None:
        chosen = self.batch.next_fill()
        self._guarded(lambda: self.batch.fill(chosen), chosen, self._fill_less)
        self._hand_out()

    def _recover(self) -> None:
        """Some time after memory ran out, try again as many rows as before."""
        self._good_steps += 1
        if self._good_steps >= PATIENCE or not self.batch.rows:
            self._good_steps = 0
            self._row_limit = min(2 * self._row_limit, self._max_rows) if self.batch.rows else self._max_rows
            self.batch.fill_rows, self.batch.piece = self._row_limit, PIECE

    def _admit(self) -> None:
        put_off: list[Row] = []
        while self._waiting and len(self.batch.rows) < self._row_limit:
            row = self._waiting.popleft()
            if row.pending.cancelled:
                self._over(row)
            elif self.batch.is_filling and self.batch.would_share(row):
                put_off.append(row)  # a step later, most of its prompt need not be read again
            elif not self._fits(row) or not self._joined(row):
                put_off.append(row)
                break
        self._waiting.extendleft(reversed(put_off))

    def _fits(self, row: Row) -> bool:
        """Tell whether there is memory for a row's keys and values; one alone may always try."""
        rows = [*self.batch.rows, row]
        columns = max(len(r.prompt) + r.sampling.max_tokens for r in rows)
        return len(rows) == 1 or len(rows) * columns * self._column_bytes <= self._cache_bytes

    def _joined(self, row: Row) -> bool:
        """Let a row join; tell whether it did, or failed for good."""
        try:
            self.batch.join(row)
        except Exception as exc:  # handed to the caller: the thread must outlive any request
            if _is_out_of_memory(exc) and self.batch.rows:
                return False
            self._fail(row, _no_memory(row) if _is_out_of_memory(exc) else _broken(exc), exc)
            return True
        self._leave_queue(row)
        return True

    def _guarded(self, work: Callable[[], None], rows: Sequence[Row], less: Callable[[Exception], None]) -> None:
        """Do some work on rows; when memory runs out do less, when it fails fail these rows only."""
        try:
            work()
        except Exception as exc:  # handed to the callers: the thread must outlive any batch
            if not _is_out_of_memory(exc):
                for row in rows:
                    self.batch.leave(row, keep=False)
                    self._fail(row, _broken(exc), exc)
                return
            self.out_of_memory += 1
            self._good_steps = 0
            exc.__traceback__ = None  # its frames hold the tensors
            self.batch.forget()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            less(exc)

    def _fill_less(self, exc: Exception) -> None:
        """Read fewer prompts at a time, then a shorter piece; one alone that does not fit fails."""
        chosen = self.batch.next_fill()
        if len(chosen) > 1:
            self.batch.fill_rows = len(chosen) // 2
        elif min(self.batch.piece, chosen[0].length - chosen[0].filled) > LEAST_PIECE:
            self.batch.piece = min(self.batch.piece, chosen[0].length - chosen[0].filled) // 2
        else:
            self.batch.leave(chosen[0], keep=False)
            self._fail(chosen[0], _no_memory(chosen[0]), exc)

    def _decode_less(self, exc: Exception) -> None:
        """Let the later half of the rows wait: they go on where they were, once others have left."""
        rows = [row for row in self.batch.rows if row.tokens]
        if len(rows) == 1:
            self.batch.leave(rows[0], keep=False)
            self._fail(rows[0], _no_memory(rows[0]), exc)
        for row in reversed(rows[(len(rows) + 1) // 2 :]):
            self.batch.leave(row, keep=False)
            self._waiting.appendleft(row)
        self._row_limit = max(1, len(rows) // 2)

    def _hand_out(self) -> None:
        for row in self.batch.done():
            self.batch.leave(row, keep=row.error is None)
            if row.error is not None:
                self._fail(row, EngineError(f"{row.error} (adapter: {row.adapter or 'none'})"), row.error)
            else:
                self._over(row)
                try:
                    self._finish(row)
                except Exception as exc:  # handed to the caller: no request may wait for ever
                    row.pending.end(_broken(exc))

    def _fail(self, row: Row, error: EngineError, cause: Exception | None = None) -> None:
        error.__cause__ = cause
        self._over(row)
        row.pending.end(error)

    def _over(self, row: Row) -> None:
        self._leave_queue(row)
        try:
            self._ended(row)
        except Exception:  # the adapter stays in memory a little longer
            logger.exception("could not let go of adapter %s", row.adapter)

    def _leave_queue(self, row: Row) -> None:
        if row.queued:  # one that came back after memory ran out has no place there
            row.queued = False
            self._came(row)


def _work(reference: weakref.ref[Worker], arrivals: Arrivals, threads: int | None) -> None:
    """Serve until the worker is closed, or nobody holds it any more."""
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        goes_on = True
        while goes_on:
            item = arrivals.get()
            worker = reference()
            goes_on = worker is not None and worker.serve(item)
            del worker, item


def _gone() -> EngineError:
    return EngineError("the engine was closed; load the model anew")


def _broken(exc: Exception) -> EngineError:
    return EngineError(f"the engine failed: {type(exc).__name__}: {exc}")


def _no_memory(row: Row) -> EngineError:
    return EngineError(
        f"out of memory for a prompt of {len(row.prompt):,} tokens alone; shorten it, or lower max_tokens, "
        "prefix_bytes or the number of loaded adapters"
    )


def _is_out_of_memory(exc: BaseException) -> bool:
    text = str(exc)
    return isinstance(exc, MemoryError | torch.OutOfMemoryError) or (
        isinstance(exc, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )
