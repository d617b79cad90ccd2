"""Where a task plays: one connection inside one transaction, a SQLite of its own or a server of yours.

A place opens, runs single statements inside a savepoint, bounds and guards them, and brings everything back. What a
statement may be is `statements`' matter, what it is worth the session's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from cmat_graph.envs.database.dbbench import Table
from cmat_graph.envs.database.statements import Dialect

STATEMENT_SECONDS = 10.0
MOST_ROWS, MOST_CHARS = 1_000, 1_000_000
"""Of a result, what is read at all."""


class StatementError(Exception):
    """The database does not carry out a statement."""

    def __init__(self, text: str, *, forbidden: bool = False, undone: bool = False) -> None:
        super().__init__(text)
        self.forbidden = forbidden
        """The database's own lock refused it."""
        self.undone = undone
        """It took the whole transaction with it."""


class Result(NamedTuple):
    """What a statement gave."""

    rows: list[Sequence[Any]] | None
    """None where it is no question."""
    changed: int


class Place(Protocol):
    """One database connection, inside one transaction."""

    dialect: Dialect

    def create(self, table: Table) -> None:
        """Make the task's own table, outside the attempt's transaction: a rollback must leave it there."""

    def begin(self) -> None:
        """Begin the attempt's transaction."""

    def rollback(self) -> None:
        """Undo everything since `begin`."""

    def run(self, sql: str, *, keep: bool = True) -> Result:
        """Carry out one statement of the agent's, bounded and guarded; without `keep` undo it at once.

        Raises:
            StatementError: It failed, and left nothing behind.

        """

    def rows(self, table: str) -> Iterable[Sequence[Any]]:
        """Read a whole table."""

    def holds(self, table: Table, value: str) -> bool:
        """Tell whether a cell of the task's own table is equal to a value."""

    def names(self) -> dict[str, list[str]]:
        """Return the tables with their columns."""

    def forbids(self, sql: str, *, changes: bool) -> str:
        """Say what of this database a statement must not touch; empty where nothing is in its way."""

    def close(self) -> None:
        """Roll back and give the connection back."""


def first_line(exc: BaseException) -> str:
    """Return what an error says, in one line."""
    orig = getattr(exc, "orig", None) or exc
    numbered = len(orig.args) == 2 and isinstance(orig.args[0], int)  # as MySQL's drivers have it
    told = (f"{orig.args[0]}: {orig.args[1]}" if numbered else str(orig)).strip().splitlines()
    return told[0].rstrip(".") if told else type(exc).__name__


def take(cursor: Any) -> list[Sequence[Any]]:
    """Read rows until they are more than anyone will look at."""
    rows: list[Sequence[Any]] = []
    chars = 0
    while (row := cursor.fetchone()) is not None:
        rows.append(tuple(row))
        chars += sum(len(cell) for cell in row if isinstance(cell, (str, bytes)))
        if len(rows) >= MOST_ROWS or chars > MOST_CHARS:
            break
    return rows
