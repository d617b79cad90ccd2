"""Whether two SQL statements do the same: the rows they read and the table they leave, on a SQLite of their own."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

SECONDS = 2.0
ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLTable:
    """A table to run statements on; every column is text, compared without case as in DBBench."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def run(self, sql: str) -> Effect | None:
        """Run one statement on a fresh copy of the table.

        Returns:
            What it read and what it left; None when it fails, takes more than `SECONDS`, or is no single statement.

        """
        if not sql.strip():
            return None
        with closing(sqlite3.connect(":memory:")) as connection:
            names = ", ".join(f"{_quote(name)} TEXT COLLATE NOCASE" for name in self.columns)
            connection.execute(f"CREATE TABLE {_quote(self.name)} ({names})")
            marks = ", ".join("?" * len(self.columns))
            cells = [[None if cell is None else str(cell) for cell in row] for row in self.rows]
            filled = [(row + [None] * len(self.columns))[: len(self.columns)] for row in cells]
            connection.executemany(f"INSERT INTO {_quote(self.name)} VALUES ({marks})", filled)
            connection.commit()
            connection.set_authorizer(_allow)
            deadline = time.monotonic() + SECONDS
            connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
            try:
                read = connection.execute(sql).fetchmany(ROWS)
                left = connection.execute(f"SELECT * FROM {_quote(self.name)}").fetchmany(ROWS)
            except (sqlite3.Error, sqlite3.Warning, ValueError):
                return None
        ordered = "order by" in " ".join(sql.lower().split())
        return Effect(read=read if ordered else sorted(read, key=repr), left=sorted(left, key=repr))


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a statement did."""

    read: list[tuple[Any, ...]]
    """The rows it returned, in the order of its ORDER BY or sorted."""
    left: list[tuple[Any, ...]]
    """The rows of the table afterwards, sorted."""


def same_effect(sql: str, gold: str, table: SQLTable) -> bool:
    """Tell whether a statement does what the gold one does; one that fails does not.

    Example:
        >>> table = SQLTable(name="T", columns=["a", "b"], rows=[["1", "x"], ["2", "y"]])
        >>> same_effect("SELECT b FROM T WHERE a = '1'", "SELECT `b` FROM `T` WHERE a != '2'", table)
        True

    """
    done = table.run(sql)
    return done is not None and done == table.run(gold)


_DENIED = (
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_PRAGMA,
)
_CALLS_DENIED = ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer")


def _allow(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """Deny what could reach a file: the statement may be a model's."""
    if action in _DENIED or (action == sqlite3.SQLITE_FUNCTION and second in _CALLS_DENIED):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
