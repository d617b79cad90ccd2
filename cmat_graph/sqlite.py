"""How the SQLite files of this project are opened: with a write-ahead log, by any number of processes at once."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Literal

import sqlalchemy as sa

_PAUSE_S = 0.02


def use_wal(engine: sa.Engine, *, synchronous: Literal["NORMAL", "FULL"], wait_s: float) -> None:
    """Have each connection of an engine write ahead and wait for others; other databases are left as they are.

    Args:
        engine: Before its first connection.
        synchronous: "NORMAL" may lose the last commits at a power cut, "FULL" waits for the disk at each.
        wait_s: How long a statement, and the opening, waits for another process, in seconds.

    """
    if engine.dialect.name != "sqlite":
        return

    def begin(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout={round(wait_s * 1000)}")
        # Without WAL each commit waits for the disk twice: 59 rows a second where WAL gives thousands.
        until = time.monotonic() + wait_s
        while not _switched(connection, last=time.monotonic() >= until):
            time.sleep(_PAUSE_S)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    sa.event.listen(engine, "connect", begin)


def _switched(connection: Any, *, last: bool) -> bool:
    """Tell whether the file has a write-ahead log now.

    Two that switch a fresh file at once each hold the lock that the other waits for; SQLite then fails in spite of
    `busy_timeout`, so that one of them lets go.
    """
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as exc:
        if last or "locked" not in str(exc):
            raise
        return False
    return True
