"""A place of the task's own: SQLite in memory."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cmat_graph.envs.database import places
from cmat_graph.envs.database.dbbench import Table
from cmat_graph.envs.database.places import Result, StatementError, first_line, take
from cmat_graph.envs.database.statements import Dialect

CELL_BYTES, COLUMNS, PATTERN_BYTES = 1_000_000, 300, 1_000
"""Of SQLite: the longest value, the widest row, the longest pattern of LIKE. Its clock is looked at between two
operations only, so no single one may take long or hold much."""
PAGES = 50_000
"""How many pages of SQLite (4 KiB each) an attempt may add."""
_READ_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_WRITE_ACTIONS = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}


class SQLitePlace:
    """A SQLite in memory; a file of yours is copied into it: tasks play at once and spoil nothing.

    SQLite's authorizer allows an agent's statement to read and change rows, and nothing else.

    Args:
        file: Path of a database file; None starts empty.
        readonly: Refuse all changes (`PRAGMA query_only`).

    Raises:
        OSError, sqlite3.Error: The file is missing, or no database.

    """

    dialect: Dialect = "sqlite"

    def __init__(self, file: str | None = None, *, readonly: bool = False) -> None:
        self._readonly = readonly
        self._locked = self._guarded = False
        self._deadline = float("inf")
        # Statements are not kept compiled: the authorizer sees each one as it is compiled.
        self._connection = sqlite3.connect(
            ":memory:", check_same_thread=False, isolation_level=None, cached_statements=0
        )
        try:
            if file:
                self._copy(file)
            self._connection.execute("SELECT name FROM sqlite_master").fetchall()  # fails now, if it is no database
        except BaseException:
            self._connection.close()
            raise

    def _copy(self, file: str) -> None:
        if not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
        with closing(sqlite3.connect(f"{Path(file).resolve().as_uri()}?mode=ro", uri=True)) as source:
            source.backup(self._connection)

    def create(self, table: Table) -> None:
        """Make the task's own table; text compares without case, as in MySQL."""
        columns = ", ".join(f"{_quote(name)} TEXT COLLATE NOCASE" for name in table.headers)
        self._connection.execute(f"CREATE TABLE {_quote(table.table_name)} ({columns})")
        marks = ", ".join("?" * len(table.headers))
        self._connection.executemany(f"INSERT INTO {_quote(table.table_name)} VALUES ({marks})", table.cells)

    def begin(self) -> None:
        """Begin; the first time, lock the door."""
        if not self._locked:
            self._lock()
        self._connection.execute("BEGIN")

    def _lock(self) -> None:
        self._locked = True
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._connection.execute(f"PRAGMA max_page_count = {pages + PAGES}")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CELL_BYTES)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, COLUMNS)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        # SQLite's own take the product of both lengths.
        self._connection.create_function("instr", 2, _instr, deterministic=True)
        self._connection.create_function("replace", 3, _replace, deterministic=True)
        self._connection.execute("PRAGMA trusted_schema = OFF")
        if self._readonly:
            self._connection.execute("PRAGMA query_only = ON")
        self._connection.set_progress_handler(lambda: int(time.monotonic() > self._deadline), 10_000)
        self._connection.set_authorizer(self._authorize)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: object) -> int:
        if not self._guarded or action in _READ_ACTIONS:
            return sqlite3.SQLITE_OK
        if action in _WRITE_ACTIONS:
            return sqlite3.SQLITE_DENY if (first or "").lower().startswith("sqlite_") else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_DENY if (second or "").lower() in _FUNCTIONS else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in _PRAGMAS:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def run(self, sql: str, *, keep: bool = True) -> Result:
        """Carry out one statement inside a savepoint."""
        self._connection.execute("SAVEPOINT attempt")
        try:
            with self._guard():
                cursor = self._connection.execute(sql)
                rows = take(cursor) if cursor.description is not None else None
                changed = cursor.rowcount
                cursor.close()
            if rows is None and changed < 0:  # behind WITH
                (changed,) = self._connection.execute("SELECT changes()").fetchone()
        except (sqlite3.Error, sqlite3.Warning, ValueError) as exc:  # ValueError: text that cannot be encoded
            raise self._failed(exc) from exc
        if not keep:
            self._connection.execute("ROLLBACK TO attempt")
        self._connection.execute("RELEASE attempt")
        return Result(rows, changed)

    def _failed(self, exc: Exception) -> StatementError:
        told = first_line(exc)
        forbidden = "not authorized" in told or "prohibited" in told or "readonly database" in told
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK TO attempt")
            self._connection.execute("RELEASE attempt")
            return StatementError(told, forbidden=forbidden)
        self.begin()  # an interrupted write ends the whole transaction
        return StatementError(f"{told} (all changes of this attempt were undone)", undone=True)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        self._deadline, self._guarded = time.monotonic() + places.STATEMENT_SECONDS, True
        try:
            yield
        finally:
            self._deadline, self._guarded = float("inf"), False

    def rows(self, table: str) -> Iterable[Sequence[Any]]:
        """Read a whole table."""
        found: list[Sequence[Any]] = self._connection.execute(f"SELECT * FROM {_quote(table)}").fetchall()
        return found

    def holds(self, table: Table, value: str) -> bool:
        """Tell whether a cell of a table is equal to a value."""
        any_of = " OR ".join(f"{_quote(name)} = ?1" for name in table.headers)
        sql = f"SELECT 1 FROM {_quote(table.table_name)} WHERE {any_of} LIMIT 1"
        return self._connection.execute(sql, (value,)).fetchone() is not None

    def names(self) -> dict[str, list[str]]:
        """Return the tables with their columns."""
        tables = self._connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY name"
        ).fetchall()
        found = {}
        for (table,) in tables:
            found[table] = [row[1] for row in self._connection.execute(f"PRAGMA table_info({_quote(table)})")]
        return found

    def forbids(self, sql: str, *, changes: bool) -> str:
        """Forbid nothing here: all of it can be rolled back."""
        return ""

    def close(self) -> None:
        """Forget it."""
        self._connection.close()


def _instr(text: Any, part: Any) -> int | None:
    if text is None or part is None:
        return None
    if isinstance(text, bytes) and isinstance(part, bytes):
        return text.find(part) + 1
    return _text(text).find(_text(part)) + 1


def _replace(text: Any, old: Any, new: Any) -> Any:
    if text is None or old is None or new is None:
        return None
    whole, part, other = _text(text), _text(old), _text(new)
    if part and len(whole) + whole.count(part) * (len(other) - len(part)) > CELL_BYTES:
        raise ValueError("string or blob too big")
    return whole.replace(part, other) if part else text


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
