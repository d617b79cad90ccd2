"""Traces in any SQL database through SQLAlchemy; SQLite needs nothing but a path.

Every step is committed when it is recorded, so a killed process loses at most the call in flight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from cmat_graph.errors import TraceStoreError
from cmat_graph.traces import tables
from cmat_graph.types import Episode, Reflection, Step, StopReason, Task, Verdict

_PAGE = 200


class SQLTraceStore:
    """A trace store over SQLAlchemy; a `TraceStore`.

    Args:
        url: A SQLAlchemy URL such as `sqlite:///traces.db` or `postgresql://user@host/name`.

    Raises:
        TraceStoreError: The database cannot be opened; the message names the fix.

    Example:
        >>> store = SQLTraceStore("sqlite://")
        >>> list(store.episodes())
        []

    """

    def __init__(self, url: str = "sqlite:///traces.db") -> None:
        try:
            target = sa.make_url(url)
            options: dict[str, Any] = {}
            if target.get_backend_name() == "sqlite" and target.database in (None, "", ":memory:"):
                options = {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
            self._engine = sa.create_engine(target, **options)
        except (sa.exc.SQLAlchemyError, ImportError) as exc:
            raise TraceStoreError(f"not a usable trace URL: {_first_line(exc)}; try sqlite:///traces.db") from exc
        self.url = target.render_as_string()
        """The URL without its password."""
        if target.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _set_pragmas)
        with self._guard("open"):
            tables.metadata.create_all(self._engine)
            self._check_version()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def start_episode(self, episode_id: str, *, env: str, task: Task, run: str, settings: dict[str, Any]) -> None:
        """Write that an episode began."""
        row = {
            "id": episode_id,
            "env": env,
            "run": run,
            "task_id": task.id,
            "split": task.split,
            "category": task.category,
            "prompt": task.prompt,
            "settings": settings,
        }
        self._write(tables.episodes.insert().values(row))

    def record_step(self, episode_id: str, step: Step) -> int:
        """Write one model call; return its id."""
        values = {name: getattr(step, name) for name in step.__dataclass_fields__}
        return self._write(tables.steps.insert().values(episode_id=episode_id, **values))

    def judge_step(
        self, step_id: int, *, verdict: Verdict | None = None, observation: str | None = None, error: bool = False
    ) -> None:
        """Add what became of a step: its verdict, or what the environment answered."""
        values: dict[str, Any] = {}
        if verdict is not None:
            values[verdict["phase"]] = verdict
        if observation is not None:
            values |= {"observation": observation, "observation_error": error}
        self._write(tables.steps.update().where(tables.steps.c.id == step_id).values(values))

    def record_reflection(self, episode_id: str, reflection: Reflection) -> None:
        """Write one lesson."""
        values = {"node": reflection.node, "attempt": reflection.attempt, "text": reflection.text}
        self._write(tables.reflections.insert().values(episode_id=episode_id, **values))

    def finish_episode(
        self, episode_id: str, *, reward: float | None, stopped: StopReason, attempts: int, answer: str, error: str
    ) -> None:
        """Write how an episode ended."""
        values = {
            "reward": reward,
            "stopped": stopped,
            "attempts": attempts,
            "answer": answer,
            "error": error,
            "finished": datetime.now(UTC),
        }
        self._write(tables.episodes.update().where(tables.episodes.c.id == episode_id).values(values))

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
        with self._guard("read"), self._engine.connect() as connection:
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
        with self._guard("read"), self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    # -- below: how rows become records -------------------------------------------------------------------------

    def _read_page(self, ids: list[str]) -> Iterator[Episode]:
        with self._guard("read"), self._engine.connect() as connection:
            found = {row.id: row for row in connection.execute(_of(tables.episodes, tables.episodes.c.id, ids))}
            steps: dict[str, list[Step]] = {}
            for row in connection.execute(_of(tables.steps, tables.steps.c.episode_id, ids)):
                values = {name: row._mapping[name] for name in Step.__dataclass_fields__}
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
            )

    def _write(self, statement: sa.Executable) -> int:
        with self._guard("write"), self._engine.begin() as connection:
            result = connection.execute(statement)
            key = result.inserted_primary_key if result.is_insert else None  # type: ignore[attr-defined]
            return key[0] if key and isinstance(key[0], int) else 0

    def _check_version(self) -> None:
        with self._engine.begin() as connection:
            version = connection.scalar(sa.select(tables.meta.c.schema_version))
            if version is None:
                connection.execute(tables.meta.insert().values(schema_version=tables.SCHEMA_VERSION))
            elif version > tables.SCHEMA_VERSION:
                raise TraceStoreError(
                    f"{self.url} was written by a newer cmat-graph (schema {version}); upgrade this one"
                )

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


def _of(table: sa.Table, column: sa.Column[Any], ids: list[str]) -> sa.Select[Any]:
    return sa.select(table).where(column.in_(ids)).order_by(table.c.id)


def _set_pragmas(connection: Any, _: Any) -> None:
    # Without WAL each commit waits for the disk twice: 59 rows a second where WAL gives thousands.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _first_line(exc: BaseException) -> str:
    return str(getattr(exc, "orig", None) or exc).splitlines()[0]
