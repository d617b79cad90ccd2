"""A place on a server: one transaction of PostgreSQL, MySQL or MariaDB."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa

from cmat_graph.envs.database import places
from cmat_graph.envs.database.dbbench import Table
from cmat_graph.envs.database.lasting import lasting
from cmat_graph.envs.database.places import Result, StatementError, first_line, take
from cmat_graph.envs.database.statements import Dialect, names_in


class ServerPlace:
    """One transaction on a server, rolled back at the end; PostgreSQL, MySQL and MariaDB.

    Args:
        engine: Opens the connection.
        turn: Held while the place is open: sessions of one server would wait for each other's row locks.
        readonly: Let the server refuse all changes (`SET TRANSACTION READ ONLY`).

    Raises:
        sqlalchemy.exc.SQLAlchemyError: The server is away, or refuses.

    """

    def __init__(self, engine: sa.Engine, *, turn: threading.Lock, readonly: bool = False) -> None:
        self._mysql = engine.dialect.name in ("mysql", "mariadb")
        self.dialect: Dialect = "mysql" if self._mysql else "postgresql"
        self._readonly = readonly
        self._lasting: tuple[set[str], set[str]] | None = None
        self._turn: threading.Lock | None = turn
        turn.acquire()
        try:
            self._connection = engine.connect()
            self._settle()
        except BaseException:
            self.close()
            raise

    def _settle(self) -> None:
        """Set what holds for the whole connection."""
        driver: Any = self._connection.connection.driver_connection
        if hasattr(driver, "prepare_threshold"):  # psycopg: the server itself then refuses a second statement
            driver.prepare_threshold = 0
        if self._mysql:
            limit = (
                f"max_statement_time = {places.STATEMENT_SECONDS:g}"
                if getattr(self._connection.dialect, "is_mariadb", False)
                else f"max_execution_time = {int(places.STATEMENT_SECONDS * 1000)}"
            )
            self._execute(f"SET SESSION {limit}, innodb_lock_wait_timeout = {max(1, int(places.STATEMENT_SECONDS))}")
        self._connection.commit()

    def _execute(self, sql: str) -> sa.CursorResult[Any]:
        return self._connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

    def create(self, table: Table) -> None:
        """Make the task's own table, a temporary one; on MySQL as the published tasks have it, not strict."""
        columns = [sa.Column(name, sa.Text, key=f"c{i}", quote=True) for i, name in enumerate(table.headers)]
        made = sa.Table(
            table.table_name,
            sa.MetaData(),
            *columns,
            prefixes=["TEMPORARY"],
            quote=True,
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_unicode_520_ci",
        )
        made.create(self._connection)
        if filled := [{f"c{i}": cell for i, cell in enumerate(row)} for row in table.cells]:
            self._connection.execute(made.insert(), filled)
        if self._mysql:
            self._execute("SET SESSION sql_mode = REPLACE(@@sql_mode, 'STRICT_TRANS_TABLES', '')")
        self._connection.commit()

    def begin(self) -> None:
        """Begin a transaction with the limits of its statements."""
        if self._mysql and self._readonly:
            self._execute("SET SESSION TRANSACTION READ ONLY")
            self._connection.commit()
        self._connection.begin()
        if not self._mysql:
            self._execute(f"SET LOCAL statement_timeout = {int(places.STATEMENT_SECONDS * 1000)}")
            self._execute("SET LOCAL standard_conforming_strings = on")
            if self._readonly:
                self._execute("SET TRANSACTION READ ONLY")

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        self._connection.rollback()

    def run(self, sql: str, *, keep: bool = True) -> Result:
        """Carry out one statement inside a savepoint."""
        savepoint = self._connection.begin_nested()
        options = {"no_parameters": True, "stream_results": self._mysql}  # or the driver would read it all
        try:
            result = self._connection.exec_driver_sql(sql, execution_options=options)
            rows = take(result) if result.returns_rows else None
            changed = result.rowcount
            result.close()
            if keep:
                savepoint.commit()
            else:
                savepoint.rollback()
        except (sa.exc.SQLAlchemyError, ValueError) as exc:  # ValueError: text that the driver cannot encode
            raise self._failed(exc, savepoint) from exc
        return Result(rows, changed)

    def _failed(self, exc: Exception, savepoint: sa.NestedTransaction) -> StatementError:
        told = first_line(exc)
        try:
            if savepoint.is_active:
                savepoint.rollback()
        except sa.exc.SQLAlchemyError:  # a deadlock ends the whole transaction; a dead server raises again here
            self.rollback()
            self.begin()
            return StatementError(f"{told} (all changes of this attempt were undone)", undone=True)
        return StatementError(told, forbidden=_read_only(exc))

    def rows(self, table: str) -> Iterable[Sequence[Any]]:
        """Read a whole table."""
        return self._connection.execute(sa.select(sa.text("*")).select_from(sa.table(table))).all()

    def holds(self, table: Table, value: str) -> bool:
        """Tell whether a cell of a table is equal to a value."""
        selected = sa.table(table.table_name, *map(sa.column, table.headers))
        match = sa.or_(*(column == value for column in selected.columns))
        return self._connection.scalar(sa.select(1).select_from(selected).where(match).limit(1)) is not None

    def names(self) -> dict[str, list[str]]:
        """Return the tables with their columns."""
        inspector = sa.inspect(self._connection)
        return {t: [c["name"] for c in inspector.get_columns(t)] for t in sorted(inspector.get_table_names())}

    def forbids(self, sql: str, *, changes: bool) -> str:
        """Forbid what MySQL would not roll back: tables of other engines than InnoDB, and what writes to them."""
        if not self._mysql:
            return ""
        if self._lasting is None:
            self._lasting = lasting(self._connection)
        tables, routines = self._lasting
        touched = names_in(sql, "mysql") & (tables | routines if changes else routines)
        return min(touched, default="")

    def close(self) -> None:
        """Roll back and give the connection back."""
        try:
            if hasattr(self, "_connection"):
                self._connection.rollback()
                self._connection.close()
        finally:
            if self._turn is not None:
                self._turn.release()
                self._turn = None


def make_engine(url: str) -> sa.Engine:
    """Make what opens connections to a server; none is kept open between sessions."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    if engine.dialect.name in ("mysql", "mariadb"):  # before SQLAlchemy looks at the mode
        sa.event.listen(engine, "connect", _plain_quotes, insert=True)
    return engine


def _plain_quotes(driver: Any, _: object) -> None:
    """Let quotes mean on a MySQL what `statements` takes them for."""
    with closing(driver.cursor()) as cursor:
        cursor.execute(
            "SET SESSION sql_mode = REPLACE(REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', ''), 'ANSI_QUOTES', '')"
        )


def _read_only(exc: Exception) -> bool:
    orig = getattr(exc, "orig", None)
    state = str(getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None) or "")
    args: tuple[Any, ...] = getattr(orig, "args", ())
    return state == "25006" or args[:1] == (1792,)
