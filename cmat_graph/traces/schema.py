"""Make the tables of a trace database, and bring older ones up to date; others may be at it at the same moment."""

from __future__ import annotations

import sqlalchemy as sa

from cmat_graph.errors import TraceStoreError
from cmat_graph.traces import tables


def prepare(engine: sa.Engine, *, url: str) -> None:
    """Leave a database with the tables of this version.

    Args:
        engine: Where.
        url: How errors call it.

    Raises:
        TraceStoreError: A newer version wrote it.

    """
    _create_tables(engine)
    with engine.connect() as connection:
        version = connection.scalar(sa.select(tables.meta.c.schema_version))
    if version is not None and version > tables.SCHEMA_VERSION:
        raise TraceStoreError(f"{url} was written by a newer cmat-graph (schema {version}); upgrade this one")
    if version != tables.SCHEMA_VERSION:
        _bring_up_to_date(engine)


def _create_tables(engine: sa.Engine) -> None:
    for _ in tables.metadata.tables:
        try:
            tables.metadata.create_all(engine)
            return
        except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError) as exc:
            if "already exists" not in str(exc):
                raise  # else another process made one between the look and the making, which costs one try
    tables.metadata.create_all(engine)


def _bring_up_to_date(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        same = tables.meta.c.schema_version
        connection.execute(tables.meta.update().values(schema_version=same))  # takes the lock: one does it, others wait
        version = connection.scalar(sa.select(same))
        if version is None:
            connection.execute(tables.meta.insert().values(schema_version=tables.SCHEMA_VERSION))
        elif version < tables.SCHEMA_VERSION:
            _upgrade(connection, version)


def _upgrade(connection: sa.Connection, version: int) -> None:
    quote = connection.dialect.identifier_preparer
    for newer in range(version + 1, tables.SCHEMA_VERSION + 1):
        for column in tables.ADDED[newer]:
            name, kind = quote.format_column(column), column.type.compile(connection.dialect)
            try:
                connection.execute(sa.text(f"ALTER TABLE {quote.format_table(column.table)} ADD COLUMN {name} {kind}"))
            except sa.exc.OperationalError as exc:
                if "Duplicate column" not in str(exc):
                    raise  # else another process added it: MySQL gives the lock back before each change of a table
    for index in tables.steps.indexes:
        index.create(connection, checkfirst=True)
    connection.execute(tables.meta.update().values(schema_version=tables.SCHEMA_VERSION))
