"""Tasks over a real SQL database, in the format and with the scoring of AgentBench's DBBench.

Each attempt plays in a database of its own: a SQLite in memory, a copy of a SQLite file of yours, or one transaction
on a server of yours that is rolled back at the end. What may be asked of the assistant and how it answers stands in
`RULES`; how a reply is read in `parse_action`; how it is scored in `DatabaseSession.score`.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.pool import StaticPool

from cmat_graph.answers import parse_answer, same_answer
from cmat_graph.errors import ConfigurationError, EnvironmentFailure, TaskFileError
from cmat_graph.types import Finding, Observation, Task

RULES = """\
The environment is one SQL database. The task names the table and its headers. Each of your turns has one of two forms.

To run one SQL statement (one statement, on one line):
Thought: what the statement does
Action: Operation
```sql
SELECT `Name` FROM `Table` WHERE `City` = 'Oslo'
```

To finish, after you have seen the result:
Thought: why this is the answer
Action: Answer
Final Answer: ["first value", "second value"]

Put names of tables and columns in backticks and every value in single quotes. After a change to the table, finish with
Final Answer: ["done"]."""

MAX_ROUNDS = 15
"""AgentBench's limit of operations per task."""
OBSERVATION_LIMIT = 800
"""AgentBench's limit of characters per observation."""
STATEMENT_SECONDS = 10.0
GROUP_CONCAT_BYTES = 1024
"""MySQL's `group_concat_max_len`, part of the published table hash."""
CHANGES = ("INSERT", "UPDATE", "DELETE")
READS = ("SELECT", "WITH", "EXPLAIN", "SHOW", "DESCRIBE", "DESC", "VALUES")

FORMAT_HINT = "Write 'Action: Operation' and a ```sql block, or 'Action: Answer' and 'Final Answer: [...]'."
_ACTION = re.compile(r"Action: *(.*?) *(?:\n|$)")
_SQL = re.compile(r"```sql\s*(.*?)\s*```", re.DOTALL)
_FINAL = re.compile(r"\nFinal Answer:(.*)")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
"""Strings, quoted names and comments: what may hold any word or semicolon."""
_LITERAL = re.compile(r"'((?:[^']|'')*)'")


class Action(NamedTuple):
    """A reply, read: one SQL statement to run, or the final answer."""

    kind: Literal["operation", "answer"]
    text: str


def parse_action(reply: str) -> Action | None:
    """Read a reply by AgentBench's patterns; None when it holds no action."""
    found = _ACTION.search(reply)
    if found is None:
        return None
    kind = found.group(1)
    if kind == "Operation" and (sql := _SQL.search(reply)):
        return Action("operation", sql.group(1).strip())
    if kind == "Answer" and (final := _FINAL.search(reply)):
        return Action("answer", final.group(1).strip())
    return None


def operation(sql: str, thought: str) -> str:
    """Write a reply that runs one statement, the inverse of `parse_action`."""
    return f"Thought: {thought}\nAction: Operation\n```sql\n{sql}\n```"


def answer(values: Sequence[Any], thought: str) -> str:
    """Write a reply that gives the final answer, the inverse of `parse_action`."""
    return f"Thought: {thought}\nAction: Answer\nFinal Answer: {json.dumps(list(values), ensure_ascii=False)}"


class Column(BaseModel):
    """A header."""

    name: str


class TableInfo(BaseModel):
    """Headers and cells."""

    columns: list[Column] = Field(min_length=1)
    rows: list[list[Any]] = []


class Table(BaseModel):
    """A table that a task brings with it; every column is text."""

    model_config = ConfigDict(frozen=True)

    table_name: str = Field(min_length=1)
    table_info: TableInfo

    @cached_property
    def headers(self) -> list[str]:
        """The column names, with a number where two share one or one has none (faults of the published files)."""
        names: list[str] = []
        taken: set[str] = set()
        for i, column in enumerate(self.table_info.columns, 1):
            name = column.name or f"column {i}"
            while name.lower() in taken:
                name = f"{name} {i}"
            taken.add(name.lower())
            names.append(name)
        return names


class Record(BaseModel):
    """One line of a DBBench task file. A task over a database of your own leaves out `table`."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    id: str
    description: str
    label: list[Any]
    """The expected answers; for INSERT, UPDATE and DELETE the gold statements."""
    type: str = "other"
    split: str = ""
    add_description: str = ""
    table: Table | None = None
    tables: list[str] | None = None
    """For a database of your own: the tables whose content is compared; by default those that the gold names."""
    answer_md5: str | None = None
    sql: str | None = None
    sqlite_check: str = ""
    thought: str | None = None
    """Our own, in generated tasks: the expert's reasoning."""

    @property
    def prompt(self) -> str:
        """The task as the assistant reads it."""
        return f"{self.description}\n{self.add_description}".strip()

    @property
    def category(self) -> str:
        """`INSERT`, `UPDATE`, `DELETE` or `SELECT`."""
        return self.type if self.type in CHANGES else "SELECT"

    @property
    def task(self) -> Task:
        """What the assistant may know."""
        return Task(id=self.id, prompt=self.prompt, split=self.split, category=self.category)


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """Read a task file, plain or gzipped JSONL.

    Raises:
        TaskFileError: The file is missing, empty or malformed; the message names the line.

    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8") if zipped else open(path, encoding="utf-8") as lines:
            records = [_read_record(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    except FileNotFoundError as exc:
        raise TaskFileError(f"no task file at {path}; give a JSONL file, or 'builtin'") from exc
    except (OSError, EOFError, UnicodeDecodeError) as exc:
        raise TaskFileError(f"cannot read task file {path}: {exc}") from exc
    if not records:
        raise TaskFileError(f"task file {path} holds no tasks")
    if len({record.id for record in records}) < len(records):
        raise TaskFileError(f"task file {path} has two tasks with one id; give each its own")
    return records


def _read_record(path: str, number: int, line: str) -> Record:
    try:
        return Record.model_validate(json.loads(line))
    except json.JSONDecodeError as exc:
        raise TaskFileError(f"{path}, line {number}: not valid JSON ({exc.msg})") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "record"
        raise TaskFileError(f"{path}, line {number}: {where}: {first['msg']}") from exc


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
        return {record.prompt: _demonstrate(record) for record in self._records.values()}

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


def _demonstrate(record: Record) -> list[str]:
    if record.category in CHANGES:
        thought = record.thought or "The task asks for a change of the table."
        return [operation(sql, thought) for sql in record.label] + [answer(["done"], "The change is made.")]
    replies = []
    if record.sql and record.sqlite_check in ("", "sql_gives_label"):
        replies.append(operation(record.sql, record.thought or "The task asks for values of the table."))
    return [*replies, answer(record.label, "The result holds the answer.")]


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
            return Finding(text="The reply holds no action.", hint=FORMAT_HINT)
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
        return _md5(",".join(table_hash(self._rows(table)) for table in tables))

    def _rows(self, table: str) -> Iterable[Sequence[Any]]:
        return self._connection.execute(sa.select(sa.text("*")).select_from(sa.table(table))).all()


def show_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Write a result as the observation of a question: a list of tuples, as MySQL's driver prints it."""
    return repr([tuple(row) for row in rows])


def show_change(count: int) -> str:
    """Write the observation of a change (ours: the published task answers `[]`, which tells an agent nothing)."""
    return f"OK, {count} row{'s' * (count != 1)} changed."


def table_hash(rows: Iterable[Sequence[Any]]) -> str:
    """Hash a table's content as DBBench does in MySQL; the order of rows does not matter.

    For each row: the non-NULL cells joined by a comma, MD5, first five hex digits. These sorted, joined by a comma,
    cut at 1,024 bytes (`group_concat_max_len`), MD5 again.
    """
    digests = sorted(_md5(",".join(str(cell) for cell in row if cell is not None))[:5] for row in rows)
    return _md5(",".join(digests)[:GROUP_CONCAT_BYTES])


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


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
