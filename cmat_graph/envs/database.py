"""Tasks over a real SQL database.

Each attempt plays in a database of its own: a SQLite in memory, a copy of a SQLite file of yours, or one transaction
on a server of yours that is rolled back at the end. Format and scoring are DBBench's; they stand in `dbbench`.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from cmat_graph.answers import parse_answer, same_answer
from cmat_graph.envs.dbbench import (
    CHANGES,
    FORMAT_HINT,
    MAX_ROUNDS,
    RULES,
    Record,
    Table,
    demonstrate,
    md5,
    parse_action,
    show_change,
    show_rows,
    table_hash,
)
from cmat_graph.errors import ConfigurationError, EnvironmentFailure, TaskFileError
from cmat_graph.types import Finding, Observation, Task

OBSERVATION_LIMIT = 800
"""AgentBench's limit of characters per observation."""
STATEMENT_SECONDS = 10.0
STATEMENT_CHARS = 10_000
READS = ("SELECT", "WITH", "EXPLAIN", "SHOW", "DESCRIBE", "DESC", "VALUES")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
"""Strings, quoted names and comments: what may hold any word or semicolon."""
_LITERAL = re.compile(r"'((?:[^']|'')*)'")


class DatabaseEnv:
    """Database tasks; an `Env`.

    Args:
        records: The tasks.
        url: A SQLAlchemy URL of your own database; None gives each task its table in a fresh SQLite. Statements are
            checked and rolled back, but what a server's functions may do is up to the rights of the URL's user.
        max_rounds: Actions allowed in one attempt.

    """

    name = "database"
    rules = RULES

    def __init__(self, records: Iterable[Record], *, url: str | None = None, max_rounds: int = MAX_ROUNDS) -> None:
        self.max_rounds = max_rounds
        self._records = {record.id: record for record in records}
        self.url = url
        self._turn = threading.Lock() if url and not url.startswith("sqlite") else None
        lacking = next((r.id for r in self._records.values() if r.table is None and url is None), None)
        if lacking is not None:
            raise ConfigurationError(f"task {lacking!r} brings no table; give the URL of the database it is about")

    def tasks(self, split: str | None = None) -> list[Task]:
        """Return the tasks of one split, or all of them.

        Raises:
            ConfigurationError: No task is of that split; the message names the splits there are.
        """
        found = [record.task for record in self._records.values() if split in (None, record.split)]
        if not found:
            known = ", ".join(sorted({record.split or "(none)" for record in self._records.values()}))
            raise ConfigurationError(f"no tasks in split {split!r}; these tasks have: {known}")
        return found

    def open(self, task: Task) -> DatabaseSession:
        """Start a session for a task of this environment; on a server, one at a time.

        Sessions of a server would wait for each other's row locks while their assistants think.
        """
        return DatabaseSession(self._records[task.id], self.url, turn=self._turn)

    def demonstrations(self) -> dict[str, list[str]]:
        """Map each prompt to the gold replies: the statements, then the answer."""
        return {record.prompt: demonstrate(record) for record in self._records.values()}

    def metric(self, rewards: Iterable[tuple[Task, float]]) -> dict[str, float]:
        """Return DBBench's score: the mean of the category accuracies, and each of them.

        `SELECT (label reachable)` counts only the questions whose upstream query gives the label: for the others
        the published tables no longer fit the labels.
        """
        groups: dict[str, list[float]] = {}
        for task, reward in rewards:
            groups.setdefault(task.category, []).append(reward)
            if self._records[task.id].sqlite_check == "sql_gives_label":
                groups.setdefault("SELECT (label reachable)", []).append(reward)
        means = {name: sum(values) / len(values) for name, values in sorted(groups.items())}
        official = [mean for name, mean in means.items() if "(" not in name]
        return {"main": sum(official) / len(official) if official else 0.0, **means}


class DatabaseSession:
    """One task being played; a `Session`. Owns one connection, inside one transaction."""

    def __init__(self, record: Record, url: str | None = None, *, turn: threading.Lock | None = None) -> None:
        self._record = record
        self._own = url is None
        self._turn = turn
        self._deadline = float("inf")
        self._answer: str | None = None
        self._results: list[str] = []
        if turn is not None:
            turn.acquire()
        try:
            self._engine = _make_engine(url)
            self._connection = self._engine.connect()
            self._prepare()
            self._gold_hash = self._find_gold_hash()
            self._begin()
        except (sa.exc.SQLAlchemyError, sqlite3.Error, ImportError, OSError) as exc:
            self.close()
            raise EnvironmentFailure(f"cannot open the database {_shown(url)}: {_short(exc)}; check the URL") from exc
        except BaseException:
            self.close()
            raise

    def reset(self) -> None:
        """Undo everything since the start."""
        self._connection.rollback()
        self._begin()

    def close(self) -> None:
        """Roll back and give the connection back."""
        if hasattr(self, "_connection"):
            self._connection.rollback()
            self._connection.close()
        if hasattr(self, "_engine"):
            self._engine.dispose()
        if self._turn is not None:
            self._turn.release()
            self._turn = None

    def step(self, action: str) -> Observation:
        """Run a statement or take the final answer."""
        parsed = parse_action(action)
        if parsed is None:
            return Observation(text=f"Error: the reply holds no action. {FORMAT_HINT}", error=True)
        if parsed.kind == "answer":
            self._answer = parsed.text
            return Observation(text="", done=True)
        if refusal := _refuse(parsed.text):
            return Observation(text=f"Error: {refusal.text}", error=True)
        try:
            text = self._run(parsed.text)
        except (sa.exc.SQLAlchemyError, ValueError) as exc:  # ValueError: text that the driver cannot encode
            return Observation(text=f"Error: {_short(exc)}{self._recover()}", error=True)
        self._results.append(text)
        return Observation(text=_cut(text))

    def probe(self, action: str) -> Finding | None:
        """Look at an action: its form, a dry run of its SQL, and whether its values come from somewhere."""
        parsed = parse_action(action)
        if parsed is None:
            return Finding(text="The reply holds no action.", hint=FORMAT_HINT, category="format")
        if parsed.kind == "answer":
            return self._probe_answer(parsed.text)
        return _refuse(parsed.text) or self._dry_run(parsed.text) or self._probe_values(parsed.text)

    def score(self) -> float:
        """Return 1.0 or 0.0: the table's hash for changes (whether or not an answer was given), else the answer."""
        if self._record.category in CHANGES:
            return float(self._state_hash() == self._gold_hash)
        if self._answer is None:
            return 0.0
        return float(same_answer(parse_answer(self._answer), self._record.label))

    # -- what happens inside the transaction ------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the task's table, outside the attempt's transaction: a rollback must leave it there."""
        if self._engine.dialect.name == "sqlite":
            driver: Any = self._connection.connection.driver_connection
            driver.set_progress_handler(lambda: int(time.monotonic() > self._deadline), 10_000)
        if self._record.table is not None:
            _create_table(self._connection, self._record.table)
        if not self._own:
            sa.inspect(self._connection).get_table_names()  # fails now rather than at the first statement
        self._connection.commit()

    def _begin(self) -> None:
        self._answer = None
        self._results = []
        self._connection.begin()
        if self._engine.dialect.name == "postgresql":
            self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(STATEMENT_SECONDS * 1000)}")

    def _recover(self) -> str:
        """Go on after an error that ended the whole transaction, as an interrupted write does in SQLite."""
        driver: Any = self._connection.connection.driver_connection
        if self._engine.dialect.name != "sqlite" or driver.in_transaction:
            return ""
        self.reset()
        return " (all changes of this attempt were undone)"

    def _run(self, sql: str) -> str:
        with self._limited(), self._connection.begin_nested():
            result = self._connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
            if result.returns_rows:
                return show_rows(result.fetchmany(1000))
            return show_change(result.rowcount)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Give one SQLite statement its time; on a server `statement_timeout` does."""
        self._deadline = time.monotonic() + STATEMENT_SECONDS
        try:
            yield
        finally:
            self._deadline = float("inf")

    def _dry_run(self, sql: str) -> Finding | None:
        """Run a change inside a savepoint that is rolled back; only plan a question."""
        changes = _first_word(sql) in (*CHANGES, "REPLACE")
        savepoint = self._connection.begin_nested()
        planned = sql if changes or _first_word(sql) == "EXPLAIN" else f"EXPLAIN {sql}"
        try:
            with self._limited():
                result = self._connection.exec_driver_sql(planned, execution_options={"no_parameters": True})
                changed = result.rowcount if changes else None
                result.close()
            savepoint.rollback()
        except (sa.exc.SQLAlchemyError, ValueError) as exc:
            if not self._recover() and savepoint.is_active:
                savepoint.rollback()
            return Finding(text=f"The statement fails: {_short(exc)}.", hint=self._name_hint(_short(exc)))
        if changed == 0:
            return Finding(text="The statement changes no row.", hint="Check the values of WHERE.", certain=False)
        return None

    def _probe_values(self, sql: str) -> Finding | None:
        seen = _fold(self._record.prompt + "\n".join(self._results))
        for literal in _LITERAL.findall(sql):
            value = literal.replace("''", "'")
            if _fold(value.strip("%")) not in seen and not self._is_stored(value):
                return Finding(
                    text=f"The value '{literal}' is neither in the task nor in the table.",
                    hint="Copy each value from the task.",
                    certain=False,
                )
        return None

    def _is_stored(self, value: str) -> bool:
        if self._record.table is None:
            return True  # a database of unknown size is not searched
        table = sa.table(self._record.table.table_name, *map(sa.column, self._record.table.headers))
        match = sa.or_(*(column == value for column in table.columns))
        return self._connection.scalar(sa.select(1).select_from(table).where(match).limit(1)) is not None

    def _probe_answer(self, text: str) -> Finding | None:
        if not self._results:
            return Finding(text="No statement was run before the answer.", hint="Run a statement.", certain=False)
        last = self._results[-1]
        if not last.startswith("["):
            return None
        if last == "[]":
            return Finding(text="The last result is empty.", hint="Check the values of WHERE.", certain=False)
        missing = [value for value in parse_answer(text) if _fold(str(value)) not in _fold(last)]
        if missing:
            return Finding(
                text=f"{missing[0]!r} is not in the last result.", hint="Copy the values of the result.", certain=False
            )
        return None

    def _name_hint(self, message: str) -> str:
        """Name the closest table or column when the database knows none of that name."""
        unknown = message.rsplit(": ", 1)[-1].strip("`\"' ")
        known = self._names
        within = [name for name in known if unknown and unknown.casefold() in name.casefold()]
        close = within if len(within) == 1 else difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        if "no such" in message and close:
            return f"Did you mean `{close[0]}`?"
        return "The headers are " + ", ".join(f"`{name}`" for name in known) + "."

    @cached_property
    def _names(self) -> list[str]:
        if self._record.table is not None:
            return [self._record.table.table_name, *self._record.table.headers]
        inspector = sa.inspect(self._connection)
        tables = inspector.get_table_names()
        return [*tables, *dict.fromkeys(c["name"] for table in tables for c in inspector.get_columns(table))]

    # -- scoring ------------------------------------------------------------------------------------------------

    def _find_gold_hash(self) -> str:
        """Run the gold statements before anything else happens, and roll them back."""
        if self._record.answer_md5 or self._record.category not in CHANGES:
            return self._record.answer_md5 or ""
        self._begin()
        try:
            for statement in self._record.label:
                self._run(statement)
            return self._state_hash()
        except sa.exc.SQLAlchemyError as exc:
            raise TaskFileError(f"task {self._record.id!r}: its gold statement fails: {_short(exc)}") from exc
        finally:
            self._connection.rollback()

    def _state_hash(self) -> str:
        if self._record.table is not None:
            return table_hash(self._rows(self._record.table.table_name))
        gold = " ".join(map(str, self._record.label))
        known = sorted(sa.inspect(self._connection).get_table_names())
        tables = self._record.tables or [name for name in known if re.search(rf"\b{re.escape(name)}\b", gold)]
        return md5(",".join(table_hash(self._rows(table)) for table in tables))

    def _rows(self, table: str) -> Iterable[Sequence[Any]]:
        return self._connection.execute(sa.select(sa.text("*")).select_from(sa.table(table))).all()


def _make_engine(url: str | None) -> sa.Engine:
    target = sa.make_url(url or "sqlite://")
    if target.get_backend_name() != "sqlite":
        return sa.create_engine(target)
    file = target.database if target.database != ":memory:" else None
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, creator=lambda: _open_sqlite(file))
    # The sqlite3 module opens transactions on its own terms; SAVEPOINT and ROLLBACK need ours.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _open_sqlite(file: str | None) -> sqlite3.Connection:
    """Open a database in memory; a file of yours is copied into it: tasks can play at once and spoil nothing."""
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    if file:
        if not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
        with closing(sqlite3.connect(f"{Path(file).resolve().as_uri()}?mode=ro", uri=True)) as source:
            source.backup(connection)
    return connection


def _create_table(connection: sa.Connection, table: Table) -> None:
    text = sa.Text(collation="NOCASE" if connection.dialect.name == "sqlite" else None)  # MySQL compares without case
    columns = [sa.Column(name, text, key=f"c{i}", quote=True) for i, name in enumerate(table.headers)]
    made = sa.Table(table.table_name, sa.MetaData(), *columns, prefixes=["TEMPORARY"], quote=True)
    made.create(connection)
    rows = [[None if cell is None else str(cell) for cell in row] for row in table.table_info.rows]
    if rows:
        filled = [{f"c{i}": row[i] if i < len(row) else None for i in range(len(columns))} for row in rows]
        connection.execute(made.insert(), filled)


def _refuse(sql: str) -> Finding | None:
    """Refuse what could leave the transaction: one plain statement over the data runs, and nothing else."""
    if len(sql) > STATEMENT_CHARS:
        return Finding(text=f"The statement is longer than {STATEMENT_CHARS} characters.", hint="Write a shorter one.")
    if ";" in _QUOTED.sub(" ", sql).strip().rstrip("; \n"):
        return Finding(text="More than one statement.", hint="Run one at a time.")
    word = _first_word(sql)
    if word in (*READS, *CHANGES, "REPLACE"):
        return None
    return Finding(
        text=f"{word or 'An empty statement'} is not allowed here.", hint="Use SELECT, INSERT, UPDATE or DELETE."
    )


def _first_word(sql: str) -> str:
    found = re.match(r"[\s(]*(\w*)", _QUOTED.sub(" ", sql))
    return found[1].upper() if found else ""


def _short(exc: BaseException) -> str:
    return str(getattr(exc, "orig", None) or exc).splitlines()[0].rstrip(".")


def _shown(url: str | None) -> str:
    """Render a URL without its password."""
    try:
        return sa.make_url(url).render_as_string() if url else "SQLite in memory"
    except sa.exc.ArgumentError:
        return repr(url)


def _cut(text: str) -> str:
    return text if len(text) <= OBSERVATION_LIMIT else text[: OBSERVATION_LIMIT - 20] + "... [cut to fit]"


def _fold(text: str) -> str:
    return re.sub(r"[\s\\]+", " ", text).casefold()
