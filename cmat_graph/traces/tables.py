"""The tables of the trace database. Plain SQL that anyone may query; nothing stored is revived into objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

SCHEMA_VERSION = 4


class Instant(sa.TypeDecorator[datetime]):
    """A point in time, in UTC; SQLite gives naive values back where PostgreSQL gives aware ones."""

    impl = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Mark a value without a zone as UTC."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _now() -> datetime:
    return datetime.now(UTC)


LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
"""A text of any length; MySQL's own ends at 64 KB."""
_ANY_CHARACTER: dict[str, Any] = {
    f"{server}_{option}": value
    for server in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}

metadata = sa.MetaData()

meta = sa.Table("cmat_meta", metadata, sa.Column("schema_version", sa.Integer, nullable=False), **_ANY_CHARACTER)

episodes = sa.Table(
    "episodes",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("run", sa.String(200), nullable=False, index=True),
    sa.Column("env", sa.String(100), nullable=False),
    sa.Column("task_id", sa.String(200), nullable=False, index=True),
    sa.Column("split", sa.String(50), nullable=False),
    sa.Column("category", sa.String(100), nullable=False),
    sa.Column("prompt", LONG, nullable=False),
    sa.Column("started", Instant, nullable=False, default=_now),
    sa.Column("finished", Instant),
    sa.Column("reward", sa.Float),
    sa.Column("stopped", sa.String(20), nullable=False, default="running"),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("answer", LONG, nullable=False, default=""),
    sa.Column("error", LONG, nullable=False, default=""),
    sa.Column("settings", sa.JSON, nullable=False, default=dict),
    sa.Column("roles", sa.JSON),
    sa.Column("status", sa.String(50)),
    **_ANY_CHARACTER,
)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(32), index=True),
    sa.Column("episode_id", sa.ForeignKey("episodes.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("index", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("node", sa.String(50), nullable=False),
    sa.Column("messages", sa.JSON, nullable=False),
    sa.Column("completion", LONG, nullable=False),
    sa.Column("tool_calls", sa.JSON),
    sa.Column("tools", sa.JSON),
    sa.Column("before", sa.JSON(none_as_null=True)),
    sa.Column("after", sa.JSON(none_as_null=True)),
    sa.Column("observation", LONG),
    sa.Column("observation_error", sa.Boolean, nullable=False, default=False),
    sa.Column("input_tokens", sa.Integer, nullable=False, default=0),
    sa.Column("output_tokens", sa.Integer, nullable=False, default=0),
    sa.Column("seconds", sa.Float, nullable=False, default=0.0),
    sa.Column("model", sa.String(200), nullable=False, default=""),
    sa.Column("adapter", sa.String(200), nullable=False, default=""),
    sa.Column("told", sa.JSON),
    sa.Column("created", Instant, nullable=False, default=_now),
    **_ANY_CHARACTER,
)

reflections = sa.Table(
    "reflections",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("episode_id", sa.ForeignKey("episodes.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("node", sa.String(50), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("text", LONG, nullable=False),
    sa.Column("created", Instant, nullable=False, default=_now),
    **_ANY_CHARACTER,
)

actions = sa.Table(
    "actions",
    metadata,
    sa.Column("episode_id", sa.String(36), primary_key=True),
    sa.Column("place", sa.String(64), primary_key=True),
    sa.Column("begun", Instant, nullable=False, default=_now),
    **_ANY_CHARACTER,
)
"""Tool calls that were begun, by attempt and round: what a run that was killed must not begin again."""

ADDED = {
    2: (episodes.c.roles, steps.c.key, steps.c.tool_calls, steps.c.tools),
    3: (steps.c.told,),
    4: (episodes.c.status,),
}
"""Columns that each schema version brought, for databases written before."""
