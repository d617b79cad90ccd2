"""Tasks over a real SQL database: DBBench's protocol (AgentBench v0.2 "DB"), in SQLite or on a server of yours.

A reply is `Action: Operation` with one statement in a ```sql block, or `Action: Answer` with `Final Answer: [...]`
(`dbbench.parse_action`); at most 15 operations. What holds no action is `invalid="format"`, a statement that may not
run (`statements`) is `invalid="action"`; both may be mended, unless the environment is wrapped in
`cmat_graph.envs.strict`. A question is scored by its answer, a change by the table's hash, whether or not there was an
answer. The main score is the mean of the accuracies of SELECT, INSERT and UPDATE.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import cached_property

import sqlalchemy as sa

from cmat_graph.answers import parse_answer, same_answer
from cmat_graph.envs.database.dbbench import (
    CHANGES,
    FORMAT_HINT,
    MAX_ROUNDS,
    RULES,
    Record,
    demonstrate,
    md5,
    parse_action,
    show_change,
    show_rows,
    table_hash,
)
from cmat_graph.envs.database.places import Place, StatementError, first_line
from cmat_graph.envs.database.server import ServerPlace, make_engine
from cmat_graph.envs.database.sqlite import SQLitePlace
from cmat_graph.envs.database.statements import Refusal, first_word, refuse, writes
from cmat_graph.envs.database.wikitables import same_texts
from cmat_graph.envs.files import of_split
from cmat_graph.errors import ConfigurationError, EnvironmentFailure, TaskFileError
from cmat_graph.types import Finding, Observation, Task

OBSERVATION_LIMIT = 800
"""AgentBench's limit of characters per observation."""
_LITERAL = re.compile(r"'((?:[^']|'')*)'")
_UNKNOWN = re.compile(
    r"no such (?:table|column): (?P<sqlite>.+)|Unknown column '(?P<column>[^']*)'"
    r"|Table '(?:[^'.]*\.)?(?P<table>[^']*)' doesn't exist"
    r"|(?:column|relation) \"?(?P<postgresql>.+?)\"? does not exist"
)


class DatabaseEnv:
    """Database tasks; an `Env`.

    Each attempt plays in a database of its own: a SQLite in memory, a copy of a SQLite file of yours, or one
    transaction on a server of yours that is rolled back at the end.

    Args:
        records: The tasks.
        url: A SQLAlchemy URL of your own database; None gives each task its table in a fresh SQLite. Statements are
            checked, but what a server's own functions may do is up to the rights of the URL's user: give it few.
        max_rounds: Actions allowed in one attempt.
        readonly: Have the database itself refuse every change.

    Raises:
        ConfigurationError: A task brings no table and there is no database, or it changes one that is read-only.

    """

    name = "database"
    rules = RULES

    def __init__(
        self,
        records: Iterable[Record],
        *,
        url: str | None = None,
        max_rounds: int = MAX_ROUNDS,
        readonly: bool = False,
    ) -> None:
        self.max_rounds = max_rounds
        self.url = url
        self.readonly = readonly
        self._records = {record.id: record for record in records}
        self._turn = threading.Lock()
        self._gold_hashes: dict[str, str] = {}
        """Of tasks that bring their own table, where the file does not give it."""
        for record in self._records.values():
            if record.table is None and url is None:
                raise ConfigurationError(
                    f"task {record.id!r} brings no table; give the URL of the database it is about"
                )
            if readonly and record.category in CHANGES:
                raise ConfigurationError(
                    f"task {record.id!r} is to change the database, and readonly forbids that; leave one of them out"
                )

    def tasks(self, split: str | None = None) -> list[Task]:
        """Return the tasks of one split, or all of them.

        Raises:
            ConfigurationError: No task is of that split; the message names the splits there are.
        """
        return of_split((record.task for record in self._records.values()), split)

    def open(self, task: Task) -> DatabaseSession:
        """Start a session for a task of this environment; on a server, one at a time.

        Sessions of a server would wait for each other's row locks while their assistants think.

        Raises:
            ConfigurationError: The task is of another environment.
            EnvironmentFailure: The database cannot be opened.
            TaskFileError: The task's own gold statement fails.

        """
        if task.id not in self._records:
            raise ConfigurationError(f"no task {task.id!r} here; take tasks from this environment's tasks()")
        record = self._records[task.id]
        try:
            place = self._place()
        except (sa.exc.SQLAlchemyError, sqlite3.Error, ImportError, OSError) as exc:
            raise EnvironmentFailure(
                f"cannot open the database {_shown(self.url)}: {first_line(exc)}; check the URL"
            ) from exc
        try:
            aside = self._place if place.dialect == "sqlite" else None  # a server's sessions take turns
            return DatabaseSession(record, place, gold_hashes=self._gold_hashes, aside=aside)
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as exc:
            place.close()
            raise EnvironmentFailure(f"cannot make the table of task {task.id!r}: {first_line(exc)}") from exc
        except BaseException:
            place.close()
            raise

    def _place(self) -> Place:
        if self.url is None:
            return SQLitePlace(readonly=self.readonly)
        target = sa.make_url(self.url)
        if target.get_backend_name() == "sqlite":
            file = target.database if target.database != ":memory:" else None
            return SQLitePlace(file, readonly=self.readonly)
        return ServerPlace(self._engine, turn=self._turn, readonly=self.readonly)

    @cached_property
    def _engine(self) -> sa.Engine:
        assert self.url is not None
        return make_engine(self.url)

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
    """One task being played; a `Session`. Owns its place, inside one transaction."""

    def __init__(
        self,
        record: Record,
        place: Place,
        *,
        gold_hashes: dict[str, str],
        aside: Callable[[], Place] | None = None,
    ) -> None:
        self._record = record
        self._place = place
        self._answer: str | None = None
        self._results: list[str] = []
        if record.table is not None:
            place.create(record.table)
        self._gold_hash = self._find_gold_hash(gold_hashes, aside)
        place.begin()

    def reset(self) -> None:
        """Undo everything since the start."""
        self._answer, self._results = None, []
        self._place.rollback()
        self._place.begin()

    def close(self) -> None:
        """Roll back and give the connection back."""
        self._place.close()

    def step(self, action: str) -> Observation:
        """Run a statement or take the final answer."""
        parsed = parse_action(action)
        if parsed is None:
            return Observation(text=f"Error: the reply holds no action. {FORMAT_HINT}", error=True, invalid="format")
        if parsed.kind == "answer":
            self._answer = parsed.text
            return Observation(text="", done=True)
        if refusal := self._refuse(parsed.text):
            return Observation(text=f"Error: {refusal.finding.text}", error=True, invalid=refusal.invalid)
        try:
            result = self._place.run(parsed.text)
        except StatementError as exc:
            if exc.undone:
                self._results = []
            return Observation(text=_cut(f"Error: {exc}"), error=True, invalid="action" if exc.forbidden else "")
        text = show_rows(result.rows) if result.rows is not None else show_change(result.changed)
        self._results.append(text)
        return Observation(text=_cut(text))

    def probe(self, action: str) -> Finding | None:
        """Look at an action: its form, a dry run of its SQL, and whether its values come from somewhere."""
        parsed = parse_action(action)
        if parsed is None:
            return Finding(text="The reply holds no action.", hint=FORMAT_HINT, category="format")
        if parsed.kind == "answer":
            return self._probe_answer(parsed.text)
        if refusal := self._refuse(parsed.text):
            return refusal.finding
        return self._dry_run(parsed.text) or self._probe_values(parsed.text)

    def score(self) -> float:
        """Return 1.0 or 0.0: the table's hash for changes (whether or not an answer was given), else the answer."""
        if self._record.category in CHANGES:
            return float(self._state_hash(self._place) == self._gold_hash)
        if self._answer is None:
            return 0.0
        same = same_texts if self._record.loose else same_answer
        return float(same(parse_answer(self._answer), self._record.label))

    # -- looking at a statement ---------------------------------------------------------------------------------

    def _refuse(self, sql: str) -> Refusal | None:
        dialect = self._place.dialect
        if refusal := refuse(sql, dialect):
            return refusal
        if name := self._place.forbids(sql, changes=writes(sql, dialect)):
            text = f"{name} could not be rolled back: it is, or leads to, a table that is not InnoDB."
            return Refusal(Finding(text=text, hint="Read it only."), "action")
        return None

    def _dry_run(self, sql: str) -> Finding | None:
        """Run a change inside a savepoint that is rolled back; only plan a question."""
        word, changes = first_word(sql, self._place.dialect), writes(sql, self._place.dialect)
        if sql.lstrip().startswith("(") or word in ("SHOW", "DESCRIBE", "DESC"):
            return None  # cannot be planned
        try:
            result = self._place.run(sql if changes or word == "EXPLAIN" else f"EXPLAIN {sql}", keep=False)
        except StatementError as exc:
            return Finding(text=f"The statement fails: {exc}.", hint=self._name_hint(str(exc)))
        if changes and result.changed == 0 and result.rows is None:
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
        return self._place.holds(self._record.table, value)

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
        known = self._names
        found = _UNKNOWN.search(message)
        unknown = next(filter(None, found.groups()), "").strip("`\"' ") if found else ""
        within = [name for name in known if unknown and unknown.casefold() in name.casefold()]
        close = within if len(within) == 1 else difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        if unknown and close:
            return f"Did you mean `{close[0]}`?"
        return "The headers are " + ", ".join(f"`{name}`" for name in known) + "."

    @cached_property
    def _names(self) -> list[str]:
        if self._record.table is not None:
            return [self._record.table.table_name, *self._record.table.headers]
        names = self._place.names()
        return [*names, *dict.fromkeys(column for columns in names.values() for column in columns)]

    # -- scoring ------------------------------------------------------------------------------------------------

    def _find_gold_hash(self, known: dict[str, str], aside: Callable[[], Place] | None) -> str:
        """Run the gold statements before anything else happens, and roll them back.

        Aside where that can be: `total_changes()` of the agent's own connection would tell how many rows they change.
        """
        record = self._record
        if record.answer_md5 or record.category not in CHANGES:
            return record.answer_md5 or ""
        if record.id in known:
            return known[record.id]
        place = self._place if aside is None else aside()
        try:
            if aside is not None and record.table is not None:
                place.create(record.table)
            place.begin()
            for statement in record.label:
                place.run(statement)
            found = self._state_hash(place)
        except StatementError as exc:
            raise TaskFileError(f"task {record.id!r}: its gold statement fails: {exc}") from exc
        finally:
            place.rollback() if aside is None else place.close()
        if record.table is not None:
            known[record.id] = found
        return found

    def _state_hash(self, place: Place) -> str:
        if self._record.table is not None:
            return table_hash(place.rows(self._record.table.table_name))
        gold = " ".join(map(str, self._record.label))
        tables = self._record.tables or [
            name for name in sorted(place.names()) if re.search(rf"\b{re.escape(name)}\b", gold)
        ]
        return md5(",".join(table_hash(place.rows(table)) for table in tables))


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
