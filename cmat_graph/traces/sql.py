"""Traces in any SQL database through SQLAlchemy; SQLite needs nothing but a path.

A thread writes what was recorded, within milliseconds; a killed process loses at most those, and the call in flight.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from cmat_graph.errors import TraceStoreError
from cmat_graph.sqlite import use_wal
from cmat_graph.traces import tables
from cmat_graph.traces.redact import Redactor
from cmat_graph.traces.schema import prepare
from cmat_graph.traces.writer import Writer
from cmat_graph.types import Episode, Reflection, Step, StopReason, Task, Verdict

_PAGE = 200
BEGIN_S = 5.0
"""How long an action waits for what led to it to be written."""
_FIELDS = tuple(Step.__dataclass_fields__)
_STEP = tables.steps.insert()
_LESSON = tables.reflections.insert()


def _update(table: sa.Table, key: sa.Column[Any], *names: str) -> sa.Update:
    """Make an update of these columns; prepared once, since building one costs more than writing a row."""
    return table.update().where(key == sa.bindparam("_key")).values({n: sa.bindparam(f"_{n}") for n in names})


def _insert_once(table: sa.Table, *names: str) -> sa.Insert:
    """Make an insert that leaves a row alone which is there already."""
    values = [sa.bindparam(f"_{name}", type_=table.c[name].type) for name in names]
    there = sa.exists().where(table.c.id == sa.bindparam("_id", type_=table.c.id.type))
    return table.insert().from_select(names, sa.select(*values).where(~there))


_BEGUN = ("id", "env", "run", "task_id", "split", "category", "prompt", "settings", "started")
_START = _insert_once(tables.episodes, *_BEGUN)
_BEFORE = _update(tables.steps, tables.steps.c.key, "before")
_AFTER = _update(tables.steps, tables.steps.c.key, "after")
_SEEN = _update(tables.steps, tables.steps.c.key, "observation", "observation_error")
_ROLES = _update(tables.episodes, tables.episodes.c.id, "roles")
_TASK = _update(tables.episodes, tables.episodes.c.id, "prompt").where(tables.episodes.c.prompt == "")
_STATUS = _update(tables.episodes, tables.episodes.c.id, "status")
_END = _update(tables.episodes, tables.episodes.c.id, "reward", "stopped", "attempts", "answer", "error", "finished")


class SQLTraceStore:
    """A trace store over SQLAlchemy; a `TraceStore`.

    Args:
        url: A SQLAlchemy URL such as `sqlite:///traces.db` or `postgresql://user@host/name`.
        redact: What must not be stored; by default keys, tokens and passwords in URLs.

    Raises:
        TraceStoreError: The database cannot be opened; the message names the fix.

    Example:
        >>> store = SQLTraceStore("sqlite://")
        >>> list(store.episodes())
        []

    """

    def __init__(self, url: str = "sqlite:///traces.db", *, redact: Redactor | None = None) -> None:
        try:
            target = sa.make_url(url)
            options: dict[str, Any] = {}
            alone = target.get_backend_name() == "sqlite" and target.database in (None, "", ":memory:")
            if alone:
                options = {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
            if target.get_backend_name() in ("mysql", "mariadb"):
                options = {"isolation_level": "READ COMMITTED"}  # else writers of different rows lock each other out
            self._engine = sa.create_engine(target, **options)
        except (sa.exc.SQLAlchemyError, ImportError) as exc:
            raise TraceStoreError(f"not a usable trace URL: {_first_line(exc)}; try sqlite:///traces.db") from exc
        self.url = Redactor(names=("password",)).text(target.render_as_string())
        """The URL without its password."""
        use_wal(self._engine, synchronous="NORMAL", wait_s=10)
        self._turn: Any = threading.RLock() if alone else nullcontext()  # in memory there is one connection for all
        redactor = redact or Redactor()
        self._clean: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: _storable(redactor.value(row))
        self._writer = Writer(self._engine, guard=self._turn, clean=self._clean)
        with self._guard("open"):
            prepare(self._engine, url=self.url)
        atexit.register(_flush_last, weakref.ref(self))

    @property
    def dropped(self) -> int:
        """Rows that could not be written; `why_dropped` tells why."""
        return self._writer.dropped

    @property
    def why_dropped(self) -> str:
        """Why the first row that was dropped could not be written."""
        return self._writer.why

    def flush(self) -> None:
        """Wait until everything is written."""
        self._writer.flush()

    def close(self) -> None:
        """Write what waits and give the connections back."""
        self._writer.close()
        self._engine.dispose()

    def start_episode(self, episode_id: str, *, env: str, task: Task, run: str, settings: dict[str, Any]) -> None:
        """Write that an episode began, unless that is written already."""
        row = {
            "_id": episode_id,
            "_env": env,
            "_run": run,
            "_task_id": task.id[:200],
            "_split": task.split,
            "_category": task.category,
            "_prompt": task.prompt,
            "_settings": settings,
            "_started": datetime.now(UTC),
        }
        self._writer.put(_START, row)

    def assign_roles(self, episode_id: str, *, task: str, roles: dict[str, str]) -> None:
        """Add which model plays which role, and the task's text where the episode began without one."""
        self._writer.put(_ROLES, {"_key": episode_id, "_roles": roles})
        self._writer.put(_TASK, {"_key": episode_id, "_prompt": task})

    def record_step(self, episode_id: str, step: Step) -> None:
        """Write one model call under its key."""
        row = {name: getattr(step, name) for name in _FIELDS}
        self._writer.put(_STEP, {**row, "episode_id": episode_id, "created": datetime.now(UTC)})

    def judge_step(
        self, key: str, *, verdict: Verdict | None = None, observation: str | None = None, error: bool = False
    ) -> None:
        """Add what became of a step: its verdict, or what the environment answered."""
        if verdict is not None:
            phase = verdict["phase"]
            self._writer.put(_BEFORE if phase == "before" else _AFTER, {"_key": key, f"_{phase}": verdict})
        if observation is not None:
            self._writer.put(_SEEN, {"_key": key, "_observation": observation, "_observation_error": error})

    def record_reflection(self, episode_id: str, reflection: Reflection) -> None:
        """Write one lesson."""
        row = {"node": reflection.node, "attempt": reflection.attempt, "text": reflection.text}
        self._writer.put(_LESSON, {**row, "episode_id": episode_id})

    def begin_action(self, episode_id: str, place: str) -> bool:
        """Write, and wait until it is written, that an action begins; False when it had begun before."""
        self._writer.flush(BEGIN_S)  # with all that led to it
        try:
            with self._turn, self._engine.begin() as connection:
                connection.execute(tables.actions.insert(), {"episode_id": episode_id, "place": place})
        except sa.exc.IntegrityError:
            return False
        except sa.exc.SQLAlchemyError as exc:
            self._writer.drop(1, exc)
        return True

    def has_begun(self, episode_id: str, place: str) -> bool:
        """Tell whether an action was begun."""
        table = tables.actions
        query = sa.select(sa.func.count()).where(table.c.episode_id == episode_id, table.c.place == place)
        try:
            with self._turn, self._engine.connect() as connection:
                return bool(connection.scalar(query))
        except sa.exc.SQLAlchemyError as exc:
            self._writer.drop(1, exc)
            return False

    def count_steps(self, episode_id: str) -> int:
        """Return how many steps an episode has."""
        query = sa.select(sa.func.count()).where(tables.steps.c.episode_id == episode_id)
        try:
            with self._reading() as connection:
                return int(connection.scalar(query) or 0)
        except TraceStoreError as exc:  # the run that goes on matters more than the number of its next step
            self._writer.drop(1, exc)
            return 0

    def finish_episode(
        self, episode_id: str, *, reward: float | None, stopped: StopReason, attempts: int, answer: str, error: str
    ) -> None:
        """Write how an episode ended."""
        row = {
            "_key": episode_id,
            "_reward": reward,
            "_stopped": stopped,
            "_attempts": attempts,
            "_answer": answer,
            "_error": error,
            "_finished": datetime.now(UTC),
        }
        self._writer.put(_END, row)

    def set_status(self, episode_id: str, status: str) -> None:
        """Write how an environment's rules word the episode's end."""
        self._writer.put(_STATUS, {"_key": episode_id, "_status": status})

    def stored(self, text: str) -> str:
        """Return a text as it is read back: without secrets, and without characters that no database takes."""
        return str(self._clean({"text": text})["text"])

    def add_episode(self, episode: Episode) -> bool:
        """Write an episode that was recorded elsewhere, all of it or nothing.

        Returns:
            Whether it was written; not where it is there already. What a killed process left of it is replaced.

        Raises:
            TraceStoreError: The database does not take it.

        """
        key, now = episode.id, datetime.now(UTC)
        begun = (tables.episodes.c.id == key, tables.episodes.c.finished.is_(None))
        half = sa.select(tables.episodes.c.id).where(*begun)
        self.flush()
        with self._guard("write"), self._turn, self._engine.begin() as connection:
            for table in (tables.steps, tables.reflections):  # a write comes first: it takes the lock that SQLite has
                connection.execute(table.delete().where(table.c.episode_id.in_(half)))
            connection.execute(tables.episodes.delete().where(*begun))
            if connection.scalar(sa.select(tables.episodes.c.id).where(tables.episodes.c.id == key)) is not None:
                return False
            connection.execute(tables.episodes.insert(), self._clean(_episode_row(episode, now)))
            steps = [
                {**{name: getattr(step, name) for name in _FIELDS}, "episode_id": key, "created": now}
                for step in episode.steps
            ]
            lessons = [
                {"episode_id": key, "node": each.node, "attempt": each.attempt, "text": each.text, "created": now}
                for each in episode.reflections
            ]
            for table, rows in ((tables.steps, steps), (tables.reflections, lessons)):
                if rows:
                    connection.execute(table.insert(), [self._clean(row) for row in rows])
        return True

    def episodes(
        self, *, run: str | None = None, env: str | None = None, split: str | None = None, solved: bool | None = None
    ) -> Iterator[Episode]:
        """Read episodes back, oldest first, in pages: memory stays flat however many there are."""
        table = tables.episodes
        query = sa.select(table.c.id).order_by(table.c.started, table.c.id)
        for column, wanted in ((table.c.run, run), (table.c.env, env), (table.c.split, split)):
            if wanted is not None:
                query = query.where(column == wanted)
        if solved is not None:
            query = query.where(
                sa.func.coalesce(table.c.reward, 0.0) >= 1.0 if solved else sa.func.coalesce(table.c.reward, 0.0) < 1.0
            )
        with self._reading() as connection:
            ids = list(connection.scalars(query))
        for start in range(0, len(ids), _PAGE):
            yield from self._read_page(ids[start : start + _PAGE])

    def runs(self) -> list[dict[str, Any]]:
        """Summarise each run: its episodes, how many were solved, steps and tokens."""
        episode, step = tables.episodes, tables.steps
        calls = (
            sa.select(
                step.c.episode_id,
                sa.func.count().label("steps"),
                sa.func.sum(step.c.input_tokens + step.c.output_tokens).label("tokens"),
            )
            .group_by(step.c.episode_id)
            .subquery()
        )
        solved = sa.case((sa.func.coalesce(episode.c.reward, 0.0) >= 1.0, 1), else_=0)
        query = (
            sa.select(
                episode.c.run,
                episode.c.env,
                sa.func.count().label("episodes"),
                sa.func.sum(solved).label("solved"),
                sa.func.coalesce(sa.func.sum(calls.c.steps), 0).label("steps"),
                sa.func.coalesce(sa.func.sum(calls.c.tokens), 0).label("tokens"),
            )
            .outerjoin_from(episode, calls, calls.c.episode_id == episode.c.id)
            .group_by(episode.c.run, episode.c.env)
            .order_by(sa.func.min(episode.c.started))
        )
        with self._reading() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    # -- below: how rows become records -------------------------------------------------------------------------

    def _read_page(self, ids: list[str]) -> Iterator[Episode]:
        with self._reading() as connection:
            found = {row.id: row for row in connection.execute(_of(tables.episodes, tables.episodes.c.id, ids))}
            steps: dict[str, list[Step]] = {}
            for row in connection.execute(_of(tables.steps, tables.steps.c.episode_id, ids)):
                recorded = row._mapping
                values = {name: recorded[name] for name in _FIELDS}
                for name, empty in (("key", ""), ("tool_calls", []), ("tools", []), ("told", {})):  # old rows have none
                    values[name] = values[name] or empty
                steps.setdefault(row.episode_id, []).append(Step(**values))
            lessons: dict[str, list[Any]] = {}
            for row in connection.execute(_of(tables.reflections, tables.reflections.c.episode_id, ids)):
                lessons.setdefault(row.episode_id, []).append(row)
        for episode_id in ids:
            row = found[episode_id]
            task = Task(id=row.task_id, prompt=row.prompt, split=row.split, category=row.category)
            yield Episode(
                id=row.id,
                env=row.env,
                task=task,
                run=row.run,
                reward=row.reward,
                stopped=row.stopped,
                attempts=row.attempts,
                answer=row.answer,
                error=row.error,
                steps=steps.get(row.id, []),
                reflections=[
                    Reflection(text=r.text, task=row.prompt, env=row.env, node=r.node, attempt=r.attempt)
                    for r in lessons.get(row.id, [])
                ],
                settings=row.settings,
                roles=row.roles or {},
                status=row.status or "",
            )

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        self.flush()
        with self._guard("read"), self._turn, self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as exc:
            message = _first_line(exc)
            fix = "free some disk space" if "full" in message else "check that the path exists and can be written"
            if "not a database" in message or "malformed" in message:
                fix = "it is no trace database; give another URL"
            raise TraceStoreError(f"cannot {doing} traces at {self.url}: {message}; {fix}") from exc


def _episode_row(episode: Episode, now: datetime) -> dict[str, Any]:
    return {
        "id": episode.id,
        "env": episode.env,
        "run": episode.run,
        "task_id": episode.task.id[:200],
        "split": episode.task.split,
        "category": episode.task.category,
        "prompt": episode.task.prompt,
        "settings": dict(episode.settings),
        "roles": dict(episode.roles),
        "started": now,
        "finished": now,
        "reward": episode.reward,
        "stopped": episode.stopped,
        "attempts": episode.attempts,
        "answer": episode.answer,
        "error": episode.error,
        "status": episode.status,
    }


def _of(table: sa.Table, column: sa.Column[Any], ids: list[str]) -> sa.Select[Any]:
    return sa.select(table).where(column.in_(ids)).order_by(*_order(table))


def _storable(value: Any) -> Any:
    """Replace what databases refuse in texts: half of a character pair, and NUL."""
    if isinstance(value, str):
        if "\0" in value:
            value = value.replace("\0", "\ufffd")
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return value


def _order(table: sa.Table) -> list[sa.Column[Any]]:
    return [table.c["index"], table.c.id] if "index" in table.c else [table.c.id]


def _flush_last(store: weakref.ref[SQLTraceStore]) -> None:
    """Write what still waits when the process ends."""
    if (alive := store()) is not None:
        alive.flush()


def _first_line(exc: BaseException) -> str:
    return str(getattr(exc, "orig", None) or exc).splitlines()[0]
