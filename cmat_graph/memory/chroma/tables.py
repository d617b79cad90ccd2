"""The tables of a `ChromaStore`'s items: the record of truth, from which the index can always be rebuilt."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

SCHEMA_VERSION = 1

_LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")

metadata = sa.MetaData()

items = sa.Table(
    "memory_items",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("space", sa.String(32), nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("alive", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, index=True),
    sa.Column("ttl", sa.Float),
    sa.Column("parts", sa.Integer, nullable=False),
    sa.Column("placed", sa.Integer, nullable=False),
    sa.Column("embedding", sa.String(200), nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("namespace", _LONG, nullable=False),
    sa.Column("key", _LONG, nullable=False),
    sa.Column("fields", _LONG, nullable=False),
    sa.Column("value", _LONG, nullable=False),
    sa.Column("vectors", _BYTES, nullable=False),
    # Counting and listing read these alone, not the rows with their vectors.
    sa.Index("memory_items_by_revision", "revision", "alive", "parts", "placed", "expires"),
    sa.Index("memory_items_by_space", "space", "alive", "parts", "expires", "id"),
)
"""One row an item. Times are microseconds since 1970 in UTC, `ttl` minutes. `revision` grows with every write to the
store, so what changed since is a range of it; a deleted item stays as a row that is not `alive` until the index knows.
`parts` counts the item's vectors (float32, one after the other), `placed` those that the index may hold. `namespace`,
`key` and `fields` are JSON: no database minds any character in them."""

spaces = sa.Table(
    "memory_spaces",
    metadata,
    sa.Column("prefix", sa.String(32), primary_key=True),
    sa.Column("space", sa.String(32), primary_key=True),
)
"""Each namespace under each of its prefixes, by hash: a prefix search is one join in any database and collation."""

state = sa.Table(
    "memory_state",
    metadata,
    sa.Column("name", sa.String(50), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False, default=0),
    sa.Column("text", sa.Text, nullable=False, default=""),
)
"""`schema`; `store` (its own id); `revision` (the last write); `indexed` (the last one that the index has) and
`generation` (which index that is); `embedding` (its id, and dimensions); `rebuilding` (the embedding that an unfinished
rebuild goes to)."""
