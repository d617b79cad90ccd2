"""`ChromaStore`: LangGraph's long-term store with SQL as the record and Chroma as the index.

Use it in any LangGraph app: `graph.compile(store=ChromaStore("memory/"))`. What `put` acknowledged is in SQL, and stays
found whatever becomes of the index: small namespaces are searched exactly, large ones through Chroma.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from langchain_core.embeddings import Embeddings
from langchain_core.tools import BaseTool
from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from cmat_graph.errors import ConfigurationError, EmbeddingMismatchError, MemoryStoreError
from cmat_graph.memory.chroma.embedder import Embedder, mismatch
from cmat_graph.memory.chroma.filters import check_namespace, check_search, check_ttl, fits
from cmat_graph.memory.chroma.index import OPENING, Index, disown, open_folder, own, sole
from cmat_graph.memory.chroma.records import Namespace, Records, Write, hashed
from cmat_graph.memory.chroma.searcher import SCAN_PAGE, Searcher, accepts
from cmat_graph.memory.embeddings import HashingEmbeddings
from cmat_graph.memory.langchain import StoreRetriever, StoreVectors
from cmat_graph.memory.notes import memory_tools

logger = logging.getLogger(__name__)

RESTORED_AT_ONCE = 1_000
Progress = Callable[[int, int], None]
"""Told how many are done, of how many."""


class KeptItem(Item):
    """An item with what `put` said about it, to be written again elsewhere."""

    def __init__(
        self, *, index: Literal[False] | list[str] | None = None, ttl: float | None = None, **item: Any
    ) -> None:
        super().__init__(**item)
        self.index = index
        """The paths it is found by; None for the store's own, False for none."""
        self.ttl = ttl
        """Minutes until it expires; None for never."""


class ChromaStore(BaseStore):
    """Keep LangGraph items: exact keys, namespaces, filters, time to live, and search by meaning.

    Namespaces of up to 20,000 vectors are searched exactly, larger ones through Chroma: nearly all of the nearest, and
    pages of one search may overlap a little.

    Args:
        path: Folder of the store; made when missing. Its items are in `items.db`. Without `client` it also holds an
            embedded Chroma, and one process owns it.
        client: A Chroma client of your own, such as `chromadb.HttpClient(host, port)`: then many processes may share
            the items. `chromadb.EphemeralClient()` without a path keeps everything in memory.
        records: SQLAlchemy URL of the items, in place of the folder's `items.db`.
        embeddings: Any LangChain embeddings; by default hashed words, which need no download.
        fields: Paths of what an item is found by; `$` is its whole value. `put(index=...)` overrides it.
        ttl: LangGraph's settings for items that expire.
        max_bytes: Largest value that is taken, as JSON.

    Raises:
        MemoryStoreError: Another process owns the folder, or it cannot be opened.
        EmbeddingMismatchError: The items were embedded by something else.
        ConfigurationError: Arguments that cannot work together.

    Example:
        >>> import chromadb
        >>> store = ChromaStore(client=chromadb.EphemeralClient())
        >>> store.put(("docs",), "a", {"text": "hello"})
        >>> store.search(("docs",), query="hello there")[0].value
        {'text': 'hello'}

    """

    supports_ttl = True

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        client: Any = None,
        records: str | None = None,
        embeddings: Embeddings | None = None,
        fields: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        max_bytes: int = 500_000,
    ) -> None:
        with OPENING:
            self._prepare(path, client, records, embeddings, fields, ttl, max_bytes)
            with self._closing_on_failure():
                self._check_embedding()
                self._open_index()

    def _prepare(
        self,
        path: str | os.PathLike[str] | None,
        client: Any,
        records: str | None,
        embeddings: Embeddings | None,
        fields: Sequence[str],
        ttl: TTLConfig | None,
        max_bytes: int,
    ) -> None:
        """Open the records."""
        self._folder = Path(os.fspath(path)) if path is not None else None
        self._client, self._own_client = client, client is None
        self._embedder = Embedder(embeddings or HashingEmbeddings(), fields)
        self.ttl_config, self._max_bytes = ttl, max_bytes
        self._pid, self._closed = os.getpid(), False
        if self._folder is None and client is None:
            raise ConfigurationError("give a folder: ChromaStore('memory/'), or a Chroma client and records")
        if self._folder is None and records is None:
            if client.get_settings().is_persistent or "fastapi" in str(client.get_settings().chroma_api_impl):
                raise ConfigurationError(
                    "a Chroma client is only the index: say where the items are kept, with a folder, "
                    "ChromaStore('memory/', client=...), or with records='postgresql+psycopg://...'"
                )
            records = "sqlite://"
        if self._folder is not None:
            self._take(self._folder, shared=client is not None)
        try:
            self._records = Records(records or f"sqlite:///{self._folder}/items.db", self._alone_now)
        except BaseException:
            self._release()
            raise

    # -- LangGraph's contract ----------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations: reads see the store as before the batch, then the puts apply; of two for one key the last."""
        if self._closed:
            raise MemoryStoreError("this store was closed; open it again")
        if os.getpid() != self._pid:
            raise MemoryStoreError(
                "this store was opened before the process was forked; open it in the child, over a server: "
                "ChromaStore(path, client=chromadb.HttpClient(...))"
            )
        results: list[Result] = []
        puts: dict[str, PutOp] = {}
        for op in ops:
            if isinstance(op, PutOp):
                puts[hashed([op.namespace, op.key])] = op
                results.append(None)
            elif isinstance(op, GetOp):
                results.append(self._get(op))
            elif isinstance(op, SearchOp):
                results.append(self._search(op))
            elif isinstance(op, ListNamespacesOp):
                results.append(self._list(op))
            else:
                raise ValueError(f"unknown operation {type(op).__name__}")
        if puts:
            self._put(puts)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations off the event loop."""
        return await asyncio.to_thread(self.batch, list(ops))

    # -- more than the contract --------------------------------------------------------------------------------

    @property
    def embeddings(self) -> Embeddings:
        """What items are embedded by."""
        return self._embedder.embeddings

    @property
    def failures(self) -> int:
        """How many calls of Chroma failed and were survived."""
        return self._searcher.index.failures

    def sweep_ttl(self) -> int:
        """Delete what has expired; return how many items. Expired items are never shown, swept or not."""
        return self._records.sweep()

    def stats(self) -> dict[str, Any]:
        """Return counts: items, vectors, namespaces, what waits for the index, its failures; and the embedding."""
        state = self._records.state()
        return {
            "records": self._records.url,
            "items": self._records.size(),
            "vectors": self._records.count(),
            "namespaces": len(self._records.namespaces()),
            "embedding": self._embedder.name,
            "dimensions": self._embedder.dimensions,
            "waiting_for_index": state["revision"][0] - state["indexed"][0],
            "index_failures": self._searcher.index.failures,
        }

    def items(self, prefix: Namespace = ()) -> Iterator[KeptItem]:
        """Yield every item under a prefix, the one written longest ago first."""
        for row in self._records.walk(prefix, newest=False):
            yield KeptItem(**_told(row), index=json.loads(row.fields), ttl=row.ttl)

    def restore(self, items: Iterable[KeptItem]) -> int:
        """Write items with the times they carry; return how many. What has the same namespace and key is replaced."""
        done, rest = 0, iter(items)
        while some := list(islice(rest, RESTORED_AT_ONCE)):
            puts = {hashed([i.namespace, i.key]): PutOp(i.namespace, i.key, i.value, i.index, i.ttl) for i in some}
            times = {hashed([i.namespace, i.key]): (_micros(i.created_at), _micros(i.updated_at)) for i in some}
            self._put(puts, times)
            done += len(some)
        return done

    def as_retriever(self, namespace: Namespace = (), **settings: Any) -> StoreRetriever:
        """Return a LangChain retriever over a namespace; settings such as `k`, `filter` and `min_score`."""
        return StoreRetriever(store=self, namespace=namespace, **settings)

    def as_vectorstore(self, namespace: Namespace, *, text_field: str = "text") -> StoreVectors:
        """Return a LangChain vector store over a namespace."""
        return StoreVectors(self, namespace, text_field=text_field)

    def as_tools(self, namespace: Namespace, **settings: Any) -> list[BaseTool]:
        """Return a pair of tools with which an agent searches a namespace and saves to it."""
        return memory_tools(self, namespace, **settings)

    def close(self) -> None:
        """Give back connections and the folder. Nothing waits to be written: each put was."""
        if self._closed:
            return
        self._closed = True
        self._records.close()
        if self._own_client and self._client is not None:
            self._client.close()
        self._release()

    def __enter__(self) -> ChromaStore:
        """Return the store."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the store."""
        self.close()

    @classmethod
    def rebuild(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        client: Any = None,
        records: str | None = None,
        embeddings: Embeddings | None = None,
        fields: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        max_bytes: int = 500_000,
        progress: Progress | None = None,
    ) -> ChromaStore:
        """Open a store with a new index, whatever the old one was like; embed anew where the embedding is another.

        Interrupted, it is finished by running it again.
        """
        store = cls.__new__(cls)
        with OPENING:
            store._prepare(path, client, records, embeddings, fields, ttl, max_bytes)
            with store._closing_on_failure():
                store._rebuild(progress or (lambda done, total: None))
        return store

    def _rebuild(self, report: Progress) -> None:
        name, dimensions = self._embedder.name, self._embedder.measure()
        if self._records.state().get("embedding", (dimensions, name)) != (dimensions, name):
            self._records.set_state("rebuilding", dimensions, name)
        self._embedder.dimensions = dimensions
        total = self._records.size()
        for done in self._records.reembed(name, dimensions, self._embedder.embed_rows):
            report(min(done, total), total)
        self._records.set_state("embedding", dimensions, name)
        self._records.set_state("rebuilding")
        self._drop_index()
        self._records.forget_index()
        self._open_index()
        behind = self._records.marks().revision
        while self._searcher.learn():
            report(max(0, total - (behind - self._searcher.indexed)), total)
        report(total, total)

    # -- reading -----------------------------------------------------------------------------------------------

    def _get(self, op: GetOp) -> Item | None:
        key = hashed([op.namespace, op.key])
        row = self._records.fetch([key]).get(key)
        if row is None:
            return None
        self._refresh([row], op.refresh_ttl)
        return _item(row)

    def _list(self, op: ListNamespacesOp) -> list[Namespace]:
        kept = [s for s in self._records.namespaces() if all(fits(s, c) for c in op.match_conditions or ())]
        cut = sorted({namespace[: op.max_depth] for namespace in kept})
        return cut[op.offset : op.offset + op.limit]

    def _search(self, op: SearchOp) -> list[SearchItem]:
        check_search(op)
        op = op._replace(namespace_prefix=tuple(op.namespace_prefix))
        wanted = op.offset + op.limit
        if op.query:
            found = self._searcher.find(self._embedder.query(op.query), op)
        else:
            rows = self._records.walk(op.namespace_prefix, page=min(max(1, wanted), SCAN_PAGE))
            found = [(row, None) for row in islice((row for row in rows if accepts(row, op)), wanted)]
        shown = found[op.offset :]
        self._refresh([row for row, _ in shown], op.refresh_ttl)
        return [_search_item(row, score) for row, score in shown]

    def _refresh(self, rows: Sequence[Any], wanted: bool) -> None:
        if wanted and (expiring := [row.id for row in rows if row.ttl is not None]):
            self._records.touch(expiring)

    # -- writing -----------------------------------------------------------------------------------------------

    def _put(self, puts: Mapping[str, PutOp], times: Mapping[str, tuple[int, int]] | None = None) -> None:
        for op in puts.values():
            check_namespace(op.namespace, whole=True)
            check_ttl(op.ttl)
        values = {key: self._encode(op) for key, op in puts.items()}
        found_by = {key: (op.value, op.index) for key, op in puts.items()}
        vectors = self._embedder.embed(found_by, self._records.known(list(puts)))
        writes = [
            Write(
                id=key,
                namespace=tuple(op.namespace),
                key=op.key,
                value=values[key],
                fields=json.dumps(op.index),
                vectors=vectors[key],
                ttl=op.ttl,
                times=(times or {}).get(key),
            )
            for key, op in puts.items()
        ]
        revision = self._records.write(writes, self._embedder.name)
        self._searcher.written(revision, len(writes))

    def _encode(self, op: PutOp) -> str | None:
        if op.value is None:
            return None
        if not isinstance(op.value, Mapping):
            raise TypeError(f"the value of {op.key!r} must be a dict, not {type(op.value).__name__}")
        try:
            text = json.dumps(op.value)
        except RecursionError as exc:
            raise ValueError(f"the value of {op.key!r} is nested too deeply to be kept") from exc
        except (TypeError, ValueError) as exc:
            raise type(exc)(f"the value of {op.key!r} cannot be kept as JSON: {exc}") from exc
        if len(text) > self._max_bytes:
            raise ValueError(
                f"the value of {op.key!r} has {len(text):,} bytes; at most {self._max_bytes:,} are kept "
                "(ChromaStore(max_bytes=...)): keep large things in files and their place here"
            )
        return text

    # -- opening -----------------------------------------------------------------------------------------------

    def _check_embedding(self) -> None:
        """Hold the embedding against the one that the items have."""
        state, name = self._records.state(), self._embedder.name
        if text := state.get("rebuilding", (0, ""))[1]:
            raise EmbeddingMismatchError(f"embedding this store anew with {text} was interrupted; run it again")
        stored = state.get("embedding")
        dimensions = stored[0] if stored is not None and stored[1] == name else self._embedder.measure()
        if stored is None:
            self._records.set_state("embedding", dimensions, name)
        elif stored != (dimensions, name):
            raise mismatch(stored[1], stored[0], name, dimensions)
        self._embedder.dimensions = dimensions

    def _open_index(self) -> None:
        name, dimensions = self._embedder.name, self._embedder.dimensions
        try:
            if self._client is None:
                self._client = self._open_folder()
            store = self._records.state()["store"][1]
            index = Index(self._client, store=store, embedding=name, dimensions=dimensions)
            if not any(self._is_whole(index) for _ in range(2)):  # others may be writing just now
                logger.warning(_LOST, self._records.url)
                index.drop()
                self._records.forget_index()
        except MemoryStoreError:
            raise
        except Exception as exc:  # Chroma raises its own, httpx's, sqlite3's and Rust's errors here
            fix = _REINDEX if self._own_client else _server_fix(self._client)
            raise MemoryStoreError(f"cannot open the Chroma index: {type(exc).__name__}: {exc}; {fix}") from exc
        finally:
            if self._folder is not None:
                (self._folder / _OPENING).unlink(missing_ok=True)
        self._searcher = Searcher(self._records, index, embedding=name, dimensions=dimensions)

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _open_folder(self) -> Any:
        """Open the embedded Chroma. Where its files took a process down, which no exception tells, it begins anew."""
        assert self._folder is not None
        mark = self._folder / _OPENING
        if mark.exists() and self._alone:
            logger.warning(_LOST, self._records.url)
            shutil.rmtree(self._folder / "index", ignore_errors=True)
            self._records.forget_index()
        mark.touch()
        return open_folder(self._folder / "index")

    def _is_whole(self, index: Index) -> bool:
        """Tell whether the index holds what it was given: a damaged one answers without an error, and less."""
        before, held, after = self._records.placed(), index.count(), self._records.placed()
        if held < min(before, after):  # others may be adding or deleting
            return False
        return index.finds(self._records.some(self._embedder.dimensions, indexed=self._records.marks().indexed))

    def _drop_index(self) -> None:
        """Delete the index, in whatever state it is."""
        try:
            if self._client is None:
                assert self._folder is not None
                self._client = open_folder(self._folder / "index")
            store = self._records.state()["store"][1]
            for collection in self._client.list_collections():
                if collection.name.startswith(f"cmat-{store[:12]}-"):
                    self._client.delete_collection(collection.name)
        except Exception:
            if not self._own_client:
                raise
            assert self._folder is not None
            self._client = None
            shutil.rmtree(self._folder / "index", ignore_errors=True)

    def _take(self, folder: Path, *, shared: bool) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / "chroma.sqlite3").exists():
                raise MemoryStoreError(
                    f"{folder} is a bare Chroma folder, as cmat-graph 0.1 wrote them; give another folder"
                )
            self._alone = own(folder, shared=shared)
        except MemoryStoreError:
            raise
        except OSError as exc:
            raise MemoryStoreError(
                f"cannot open the lesson store {folder}: {exc}; check the folder and its rights, or give another"
            ) from exc

    def _alone_now(self) -> int | None:
        return sole(self._folder) if self._folder is not None and self._own_client else None

    def _release(self) -> None:
        if self._folder is not None:
            disown(self._folder)


_OPENING = "opening"
"""A file that is there while Chroma reads its folder."""
_LOST = (
    "the Chroma index of %s was damaged or lost vectors, and is made anew as further writes come (at once: cmat-graph "
    "memory reindex PATH); nothing else is lost, and everything is found meanwhile"
)
_REINDEX = "nothing but the index is lost; make it anew: cmat-graph memory reindex PATH"


def _server_fix(client: Any) -> str:
    settings = client.get_settings()
    host, port = settings.chroma_server_host, settings.chroma_server_http_port
    return f"is there a Chroma server at {host}:{port}? Start one: chroma run --path FOLDER --port {port}"


def _item(row: Any) -> Item:
    return Item(**_told(row))


def _search_item(row: Any, score: float | None) -> SearchItem:
    return SearchItem(**_told(row), score=score)


def _told(row: Any) -> dict[str, Any]:
    return {
        "namespace": tuple(json.loads(row.namespace)),
        "key": json.loads(row.key),
        "value": json.loads(row.value),
        "created_at": _instant(row.created),
        "updated_at": _instant(row.updated),
    }


def _instant(micros: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)


def _micros(instant: datetime) -> int:
    return (instant.astimezone(UTC) - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
