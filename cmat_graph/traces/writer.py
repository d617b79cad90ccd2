"""A thread that writes rows, so that whoever records never waits for a disk and never sees it fail."""

from __future__ import annotations

import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

import sqlalchemy as sa

logger = logging.getLogger(__name__)

BATCH = 500
WAITING = 20_000
"""Rows that may wait; more are dropped and counted, rather than memory growing without end."""
GATHER_S = 0.05
"""How long rows gather before they are written together; it is what a killed process may lose."""
PATIENCE_S = 30.0

Row = tuple[sa.Executable, dict[str, Any]]


def _stop() -> None:
    """Tell the thread to end."""


class Writer:
    """Writes rows in their order, as many as wait in one transaction.

    Args:
        engine: Where to write.
        guard: Held while writing, for a database that has one connection only.
        clean: Applied to each row's values before they are written.

    """

    def __init__(
        self,
        engine: sa.Engine,
        *,
        guard: AbstractContextManager[Any],
        clean: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        self.dropped = 0
        """Rows that could not be written."""
        self.why = ""
        """Why the first one could not."""
        self._engine, self._guard, self._clean = engine, guard, clean
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        self._rows: queue.Queue[Row | Callable[[], None]] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._starting = threading.Lock()

    def begin_in_child(self) -> None:
        """Start over in a forked process: the parent's thread, rows and connections stay the parent's."""
        self._begin()
        self._engine.dispose(close=False)

    def put(self, statement: sa.Executable, values: dict[str, Any]) -> None:
        """Write a row soon; where too many wait, because the database does not take them, drop it."""
        self._start()
        try:
            self._rows.put_nowait((statement, values))
        except queue.Full:
            self.drop(1, RuntimeError(f"{WAITING} rows wait and the database takes none; is it locked?"))

    def flush(self, patience: float = PATIENCE_S) -> None:
        """Wait until all that was put is written or dropped."""
        if self._thread is None:
            return
        done = threading.Event()
        try:
            self._rows.put(done.set, timeout=patience)
        except queue.Full:
            return
        self._hurry.set()
        if not done.wait(patience):
            logger.warning("traces are still being written after %s seconds", patience)

    def _start(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="cmat-traces", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            waiting = [self._rows.get()]
            self._hurry.wait(GATHER_S)
            self._hurry.clear()
            while len(waiting) < BATCH:
                try:
                    waiting.append(self._rows.get_nowait())
                except queue.Empty:
                    break
            ends = False
            for is_row, group in groupby(waiting, key=lambda job: isinstance(job, tuple)):
                if is_row:
                    self._write([job for job in group if isinstance(job, tuple)])
                else:
                    for told in group:
                        ends = ends or told is _stop
                        told()  # type: ignore[operator]
            if ends:
                return

    def _write(self, rows: Sequence[Row]) -> None:
        try:
            cleaned = [(statement, self._clean(values)) for statement, values in rows]
            self._commit(cleaned)
        except Exception as exc:
            if len(rows) == 1:
                self.drop(1, exc)
            elif isinstance(exc, sa.exc.OperationalError):  # the database itself, not a row
                self.drop(len(rows), exc)
            else:
                for row in rows:
                    self._write([row])

    def _commit(self, rows: Sequence[Row]) -> None:
        with self._guard, self._engine.begin() as connection:
            for _, group in groupby(rows, key=lambda row: id(row[0])):
                same = list(group)
                connection.execute(same[0][0], [values for _, values in same])

    def close(self) -> None:
        """Write what waits and end the thread; a later row starts another."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._rows.put(_stop)
            self._hurry.set()
            thread.join(PATIENCE_S)

    def drop(self, number: int, exc: Exception) -> None:
        """Count rows that could not be written; the first one is logged."""
        if self.dropped == 0:
            self.why = str(getattr(exc, "orig", None) or exc).partition("\n")[0]
            logger.warning("traces are being dropped: %s", self.why)
        self.dropped += number


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _begin_in_child() -> None:
    for writer in list(_writers):
        writer.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
