"""The items of a `ChromaStore` in SQL: what is written here is kept, whatever becomes of the index."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from cmat_graph.errors import EmbeddingMismatchError, MemoryStoreError
from cmat_graph.memory.chroma import tables
from cmat_graph.sqlite import use_wal

Matrix = npt.NDArray[np.float32]
Namespace = tuple[str, ...]
CHUNK = 500
"""Ids asked for at once; databases bound the parameters of a statement."""

MAX_SPACES = 50_000
"""Namespaces remembered as known, to spare a question at each write."""

_items, _spaces, _state = tables.items, tables.spaces, tables.state
_SHOWN = [_items.c[n] for n in ("id", "namespace", "key", "value", "created", "updated", "ttl", "fields", "revision")]
_SET = (
    "revision",
    "alive",
    "updated",
    "expires",
    "ttl",
    "parts",
    "embedding",
    "dimensions",
    "fields",
    "value",
    "vectors",
)
_CHANGE = _items.update().where(_items.c.id == sa.bindparam("_id")).values({n: sa.bindparam(f"_{n}") for n in _SET})
_REBORN = _items.update().where(_items.c.id == sa.bindparam("_id")).values(created=sa.bindparam("_created"))
_PLACED = _items.update().where(_items.c.id == sa.bindparam("_id")).values(placed=sa.bindparam("_placed"))
_EMBED = (
    _items.update()
    .where(_items.c.id == sa.bindparam("_id"))
    .values({n: sa.bindparam(f"_{n}") for n in ("vectors", "parts", "embedding", "dimensions")})
)


_LIVING = (_items.c.alive, sa.or_(_items.c.expires.is_(None), _items.c.expires > sa.bindparam("_now")))
# Built once: making a statement costs more than running it.
_MARKS = sa.select(_state).where(_state.c.name.in_(("revision", "indexed", "generation", "embedding", "rebuilding")))
_EMBEDDING = sa.select(_state.c.name, _state.c.text).where(_state.c.name.in_(("embedding", "rebuilding")))
_FETCH = sa.select(*_SHOWN).where(_items.c.id.in_(sa.bindparam("_ids", expanding=True)), *_LIVING)


_CHANGES = sa.select(*(_items.c[n] for n in ("id", "namespace", "parts", "vectors"))).where(
    _items.c.revision > sa.bindparam("_after")
)


class Write(NamedTuple):
    """One item to be written; without a value it is deleted."""

    id: str
    namespace: Namespace
    key: str
    value: str | None
    """JSON."""
    fields: str
    """JSON of what it is found by: null for the store's fields, false for nothing, or a list of paths."""
    vectors: Matrix
    """`[parts, dimensions]`."""
    ttl: float | None
    """Minutes."""
    times: tuple[int, int] | None = None
    """Created and updated, when an item is restored; microseconds since 1970."""


class Marks(NamedTuple):
    """How far a store and its index are."""

    revision: int
    """The last write."""
    indexed: int
    """The last write that the index knows, with all before it."""
    generation: int
    """Which index it is: one more each time that it is begun anew."""
    embedding: tuple[int, str]
    """What the items are embedded by: its dimensions and its id."""
    rebuilding: tuple[int, str]
    """What they are being embedded by just now; no id when they are not."""


class Change(NamedTuple):
    """What the index has to learn about an item."""

    id: str
    vectors: Matrix
    """Empty for a deleted item."""
    placed: int
    """How many vectors the index may hold of it."""


class Records:
    """The rows of one store, in any SQL database.

    Args:
        url: A SQLAlchemy URL; `sqlite://` keeps everything in memory.
        alone_now: Returns a number that stays the same as long as nobody else can write, else None.

    Raises:
        MemoryStoreError: The database cannot be opened, or was written by a newer version.

    """

    def __init__(self, url: str, alone_now: Callable[[], int | None] | None = None) -> None:
        try:
            target = sa.make_url(url)
            alone = target.get_backend_name() == "sqlite" and target.database in (None, "", ":memory:")
            options: dict[str, Any] = {"pool_pre_ping": target.get_backend_name() != "sqlite"}
            if alone:
                options = {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
            self._engine = sa.create_engine(target, **options)
        except (sa.exc.SQLAlchemyError, ImportError) as exc:
            raise MemoryStoreError(f"not a usable URL for records: {_first_line(exc)}; try sqlite:///items.db") from exc
        self.url = target.render_as_string(hide_password=True)
        # FULL: not even a power cut takes a lesson that was said to be kept.
        use_wal(self._engine, synchronous="FULL", wait_s=30)
        self._turn: Any = threading.RLock() if alone else nullcontext()  # in memory there is one connection for all
        self._writing = threading.RLock()  # writers of one process queue here rather than at the database
        self._known_spaces: set[str] = set()
        self._known_marks: tuple[tuple[int | None, int], Marks] | None = None
        self._writes = 0
        self._alone = alone_now or (lambda: None)
        with self._guard("open"):
            self._create()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # -- state ----------------------------------------------------------------------------------------------------

    def marks(self) -> Marks:
        """Return how far the store and its index are; without asking while nobody else can have changed it."""
        state, known = (self._alone(), self._writes), self._known_marks
        if state[0] is not None and known is not None and known[0] == state:
            return known[1]
        with self._reading() as connection:
            found = {row.name: (row.number, row.text) for row in connection.execute(_MARKS)}
        revision, indexed, generation = (found.get(n, (0, ""))[0] for n in ("revision", "indexed", "generation"))
        marks = Marks(revision, indexed, generation, *(found.get(n, (0, "")) for n in ("embedding", "rebuilding")))
        self._known_marks = (state, marks)
        return marks

    def state(self) -> dict[str, tuple[int, str]]:
        """Return the whole state: number and text by name."""
        with self._reading() as connection:
            return {row.name: (row.number, row.text) for row in connection.execute(sa.select(_state))}

    def set_state(self, name: str, number: int = 0, text: str = "") -> None:
        """Set a number and a text of the state."""
        with self._transaction() as connection:
            _set(connection, name, number, text)

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write], embedding: str) -> int:
        """Write items in one transaction, in this order; return the store's revision after it."""
        now = _now()
        with self._transaction() as connection:
            _check_embedding(connection, embedding)
            revision = _advance(connection, len(writes))
            known = {
                row.id: row
                for ids in _chunks([write.id for write in writes])
                for row in connection.execute(
                    sa.select(_items.c.id, _items.c.alive, _items.c.expires).where(_items.c.id.in_(ids))
                )
            }
            new, changed, reborn = [], [], []
            for i, write in enumerate(writes):
                row = _row(write, embedding, revision - len(writes) + i + 1, now)
                before = known.get(write.id)
                if before is not None:
                    changed.append({f"_{name}": row[name] for name in ("id", *_SET)})
                    ended = not before.alive or (before.expires is not None and before.expires <= now)
                    if write.times or ended:
                        reborn.append({"_id": write.id, "_created": row["created"]})
                elif write.value is not None:
                    new.append(row)
            for statement, rows in ((_items.insert(), new), (_CHANGE, changed), (_REBORN, reborn)):
                if rows:
                    connection.execute(statement, rows)
            self._add_spaces(connection, {write.namespace for write in writes if write.value is not None})
        return revision

    def touch(self, ids: Sequence[str]) -> None:
        """Let the time to live of items begin anew."""
        now = _now()
        with self._transaction() as connection:
            for some in _chunks(ids):
                rows = connection.execute(sa.select(_items.c.id, _items.c.ttl).where(_items.c.id.in_(some)))
                for row in rows.all():
                    if row.ttl is not None:
                        when = _items.update().where(_items.c.id == row.id)
                        connection.execute(when.values(expires=now + _micros(row.ttl)))

    def sweep(self) -> int:
        """Delete what has expired; return how many items."""
        with self._transaction() as connection:
            found = connection.scalars(
                sa.select(_items.c.id).where(_items.c.alive, _items.c.expires <= _now()).limit(10_000)
            ).all()
            if found:
                last = _advance(connection, len(found))
                gone = {"alive": False, "parts": 0, "value": "null", "vectors": b""}
                for i, item in enumerate(found):
                    change = _items.update().where(_items.c.id == item)
                    connection.execute(change.values(**gone, revision=last - len(found) + i + 1))
        return len(found)

    # -- reading --------------------------------------------------------------------------------------------------

    def fetch(self, ids: Sequence[str], prefix: Namespace = ()) -> dict[str, sa.Row[Any]]:
        """Return the living items of these ids, under a prefix if one is given."""
        found: dict[str, sa.Row[Any]] = {}
        with self._reading() as connection:
            for some in _chunks(ids):
                rows = connection.execute(_FETCH, {"_ids": list(some), "_now": _now()})
                found.update((row.id, row) for row in rows if _is_under(row, prefix))
        return found

    def walk(
        self, prefix: Namespace, *, newest: bool = True, bare: bool = False, page: int = CHUNK
    ) -> Iterator[sa.Row[Any]]:
        """Yield the living items under a prefix, last or first written first; `bare` those without vectors only."""
        at = _items.c.revision
        last: int | None = None
        while True:
            query = _under(sa.select(*_SHOWN), prefix).where(*_LIVING)
            if bare:
                query = query.where(_items.c.parts == 0)
            if last is not None:
                query = query.where(at < last if newest else at > last)
            with self._reading() as connection:
                query = query.order_by(at.desc() if newest else at).limit(page)
                rows = connection.execute(query, {"_now": _now()}).all()
            yield from rows
            if len(rows) < page:
                return
            last = rows[-1].revision
            page = max(page, CHUNK)

    def namespaces(self) -> list[Namespace]:
        """Return every namespace that holds a living item, sorted."""
        with self._reading() as connection:
            one_each = sa.select(sa.func.min(_items.c.id)).where(*_LIVING).group_by(_items.c.space)
            ids = connection.scalars(one_each, {"_now": _now()}).all()
            found: set[Namespace] = set()
            for some in _chunks(ids):
                rows = connection.scalars(sa.select(_items.c.namespace).where(_items.c.id.in_(some)))
                found.update(tuple(json.loads(text)) for text in rows)
        return sorted(found)

    def count(self, prefix: Namespace = (), *, at_most: int | None = None) -> int:
        """Count the vectors of living items under a prefix; with `at_most` only as far as so many items."""
        query = _under(sa.select(_items.c.parts), prefix).where(_items.c.alive, _items.c.parts > 0)
        found = (query.limit(at_most) if at_most is not None else query).subquery()
        with self._reading() as connection:
            return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(found.c.parts), 0))) or 0)

    def placed(self) -> int:
        """Count the vectors that the index was given and not told to forget."""
        with self._reading() as connection:
            return int(connection.scalar(sa.select(sa.func.sum(_items.c.placed))) or 0)

    def some(self, dimensions: int, *, indexed: int, number: int = 32) -> Matrix:
        """Return a vector of each of some items that the index should know, from all over the store."""
        columns = sa.select(_items.c.vectors).where(_items.c.parts > 0, _items.c.revision <= indexed)
        found = []
        with self._reading() as connection:
            for i in range(number):
                at = columns.where(_items.c.revision > i * indexed // number).order_by(_items.c.revision).limit(1)
                if (vectors := connection.scalar(at)) is not None:
                    found.append(_matrix([vectors], dimensions)[0])
        rows: Matrix = np.array([row for row in found if row.any()], dtype="<f4").reshape(-1, dimensions)
        return rows

    def size(self) -> int:
        """Count the living items."""
        with self._reading() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).where(*_LIVING), {"_now": _now()}) or 0)

    def vectors(
        self, prefix: Namespace, dimensions: int, *, page: int | None = None
    ) -> Iterator[tuple[list[str], Matrix]]:
        """Yield the vectors under a prefix with the item of each, all at once or in pages of so many items."""
        after = 0
        while True:
            query = _under(sa.select(_items.c.id, _items.c.parts, _items.c.revision, _items.c.vectors), prefix)
            query = query.where(_items.c.parts > 0)
            if page is not None:
                query = query.where(_items.c.revision > after).order_by(_items.c.revision).limit(page)
            with self._reading() as connection:
                rows = connection.execute(query).all()
            yield _owners(rows), _matrix([row.vectors for row in rows], dimensions)
            if page is None or len(rows) < page:
                return
            after = rows[-1].revision

    def changes(self, prefix: Namespace, dimensions: int, *, after: int) -> tuple[list[str], Matrix, list[str]]:
        """Return the vectors under a prefix written after a revision, the item of each, and every item that changed.

        A deleted item has changed and has no vectors.
        """
        with self._reading() as connection:
            # By revision alone: with the prefix in the same query, databases tend to look at the whole namespace.
            rows = [row for row in connection.execute(_CHANGES, {"_after": after}) if _is_under(row, prefix)]
        return _owners(rows), _matrix([row.vectors for row in rows], dimensions), [row.id for row in rows]

    def known(self, ids: Sequence[str]) -> dict[str, sa.Row[Any]]:
        """Return what the living items of these ids are found by: value, fields and vectors."""
        columns = [_items.c[name] for name in ("id", "value", "fields", "parts", "vectors")]
        with self._reading() as connection:
            return {
                row.id: row
                for some in _chunks(ids)
                for row in connection.execute(sa.select(*columns).where(_items.c.id.in_(some), _items.c.alive))
            }

    # -- what the index has to learn ------------------------------------------------------------------------------

    def settle(self, dimensions: int, apply: Callable[[list[Change]], None], *, limit: int) -> tuple[int, int]:
        """Give the oldest changes that the index lacks to `apply` and note that it has them.

        Return how many, and the revision up to which it knows everything.

        Other writers wait meanwhile, so that no older vector overtakes a newer one on its way to a shared index.
        """
        with self._transaction() as connection:
            connection.execute(_state.update().where(_state.c.name == "indexed").values(number=_state.c.number))
            indexed = connection.scalar(sa.select(_state.c.number).where(_state.c.name == "indexed")) or 0
            columns = [_items.c[name] for name in ("id", "revision", "alive", "parts", "placed", "vectors")]
            late = sa.select(*columns).where(_items.c.revision > indexed).order_by(_items.c.revision).limit(limit)
            rows = connection.execute(late).all()
            if not rows:
                return 0, int(indexed)
            apply([Change(row.id, _matrix([row.vectors], dimensions), row.placed) for row in rows])
            placed = [{"_id": row.id, "_placed": row.parts} for row in rows if row.alive and row.parts != row.placed]
            if placed:
                connection.execute(_PLACED, placed)
            for some in _chunks([row.id for row in rows if not row.alive]):
                connection.execute(_items.delete().where(_items.c.id.in_(some)))
            _set(connection, "indexed", rows[-1].revision)
            return len(rows), int(rows[-1].revision)

    def forget_index(self) -> None:
        """Note that the index holds nothing, and is another one from now on."""
        with self._transaction() as connection:
            connection.execute(_items.update().values(placed=0))
            _set(connection, "indexed", 0)
            number = connection.scalar(sa.select(_state.c.number).where(_state.c.name == "generation"))
            _set(connection, "generation", (number or 0) + 1)

    def reembed(
        self, embedding: str, dimensions: int, embed: Callable[[list[sa.Row[Any]]], list[Matrix]], *, page: int = 200
    ) -> Iterator[int]:
        """Give each item whose vectors are of another embedding new ones; yield how many are done after each page."""
        done = 0
        columns = [_items.c[name] for name in ("id", "fields", "value", "dimensions")]
        other = sa.or_(_items.c.embedding != embedding, _items.c.dimensions != dimensions)
        while True:
            with self._transaction() as connection:
                rows = list(connection.execute(sa.select(*columns).where(_items.c.alive, other).limit(page)).all())
                if not rows:
                    return
                changed = [
                    {
                        "_id": row.id,
                        "_vectors": vectors.tobytes(),
                        "_parts": len(vectors),
                        "_embedding": embedding,
                        "_dimensions": dimensions,
                    }
                    for row, vectors in zip(rows, embed(rows), strict=True)
                ]
                connection.execute(_EMBED, changed)
            done += len(rows)
            yield done

    # -- below: how ------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        for attempt in range(5):  # several processes may create the tables at once
            try:
                tables.metadata.create_all(self._engine)
                with self._turn, self._engine.begin() as connection:
                    known = {row.name: row.number for row in connection.execute(sa.select(_state))}
                    if "schema" not in known:
                        first = {"schema": (tables.SCHEMA_VERSION, ""), "store": (0, uuid.uuid4().hex)}
                        for name, (number, text) in {**first, "revision": (0, ""), "indexed": (0, "")}.items():
                            connection.execute(_state.insert().values(name=name, number=number, text=text))
                    elif known["schema"] > tables.SCHEMA_VERSION:
                        raise MemoryStoreError(f"{self.url} was written by a newer cmat-graph; upgrade this one")
                return
            except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
                if attempt == 4:
                    raise
                time.sleep(0.1 * 2**attempt)

    def _add_spaces(self, connection: sa.Connection, namespaces: set[Namespace]) -> None:
        unknown = {hashed(namespace): namespace for namespace in namespaces} if namespaces else {}
        for space in self._known_spaces & set(unknown):
            del unknown[space]
        for space, namespace in unknown.items():
            there = sa.select(sa.func.count()).where(_spaces.c.space == space)
            if not connection.scalar(there):
                prefixes = {hashed(namespace[:depth]) for depth in range(len(namespace) + 1)}
                connection.execute(_spaces.insert(), [{"prefix": prefix, "space": space} for prefix in prefixes])
        connection.info.setdefault("added", set()).update(unknown)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._guard("write"), self._writing, self._turn, self._engine.begin() as connection:
            # The first statement takes the database's write lock: what is read after it stays true until the end.
            connection.execute(_state.update().where(_state.c.name == "store").values(number=_state.c.number))
            connection.info["added"] = set()
            yield connection
            added = connection.info.pop("added")
        self._writes += 1  # marks that were read until now are no longer known
        if len(self._known_spaces) > MAX_SPACES:
            self._known_spaces.clear()
        self._known_spaces |= added

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._guard("read"), self._turn, self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as exc:
            message = _first_line(exc)
            fix = "check that it exists and can be written"
            if "full" in message:
                fix = "free some disk space"
            elif "not a database" in message or "malformed" in message:
                fix = "it is damaged or no lesson store; give another folder, or put a backup back"
            raise MemoryStoreError(f"cannot {doing} the items at {self.url}: {message}; {fix}") from exc


def hashed(value: Any) -> str:
    """Name a namespace, or a namespace and a key, by hash."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _row(write: Write, embedding: str, revision: int, now: int) -> dict[str, Any]:
    created, updated = write.times or (now, now)
    gone = write.value is None
    return {
        "id": write.id,
        "space": hashed(write.namespace),
        "revision": revision,
        "alive": not gone,
        "created": created,
        "updated": updated,
        "expires": None if gone or write.ttl is None else now + _micros(write.ttl),
        "ttl": None if gone else write.ttl,
        "parts": 0 if gone else len(write.vectors),
        "placed": 0,
        "embedding": embedding,
        "dimensions": write.vectors.shape[1],
        "namespace": json.dumps(write.namespace),
        "key": json.dumps(write.key),
        "fields": write.fields,
        "value": "null" if gone else write.value,
        "vectors": b"" if gone else write.vectors.tobytes(),
    }


def _check_embedding(connection: sa.Connection, embedding: str) -> None:
    """Refuse to write beside items of another embedding, also while another process goes over to it."""
    for name, text in connection.execute(_EMBEDDING):
        if text not in ("", embedding):
            doing = "is being" if name == "rebuilding" else "was"
            raise EmbeddingMismatchError(f"this store {doing} embedded anew with {text}; open it with that")


def _advance(connection: sa.Connection, by: int) -> int:
    connection.execute(_state.update().where(_state.c.name == "revision").values(number=_state.c.number + by))
    return int(connection.scalar(sa.select(_state.c.number).where(_state.c.name == "revision")) or 0)


def _set(connection: sa.Connection, name: str, number: int, text: str = "") -> None:
    row = {"number": number, "text": text}
    if not connection.execute(_state.update().where(_state.c.name == name).values(**row)).rowcount:
        connection.execute(_state.insert().values(name=name, **row))


def _under(query: sa.Select[Any], prefix: Namespace) -> sa.Select[Any]:
    if not prefix:
        return query
    return query.join(_spaces, _spaces.c.space == _items.c.space).where(_spaces.c.prefix == hashed(prefix))


def _is_under(row: sa.Row[Any], prefix: Namespace) -> bool:
    return not prefix or tuple(json.loads(row.namespace)[: len(prefix)]) == prefix


def _owners(rows: Sequence[Any]) -> list[str]:
    return [row.id for row in rows for _ in range(row.parts)]


def _matrix(blobs: Sequence[bytes], dimensions: int) -> Matrix:
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, dimensions)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def _now() -> int:
    return time.time_ns() // 1000


def _micros(minutes: float) -> int:
    return int(minutes * 60_000_000)


def _first_line(exc: BaseException) -> str:
    return str(getattr(exc, "orig", None) or exc).splitlines()[0]
