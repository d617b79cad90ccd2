"""A LangGraph long-term store over Chroma. Vectors are ours (no download); values are JSON.

An embedded Chroma belongs to one process: two that write at once lose results without an error. A lock file sees
to that; for several processes start `chroma run` and pass `client=chromadb.HttpClient(...)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import chromadb
from chromadb.config import Settings
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    get_text_at_path,
)

from cmat_graph.errors import MemoryStoreError
from cmat_graph.memory.embeddings import HashingEmbeddings

_owned: dict[str, IO[str]] = {}
"""Lock files this process holds, by folder."""

Where = dict[str, Any]
MAX_PUTS = 1000
"""Items written at once; Chroma takes at most some five thousand."""


class ChromaStore(BaseStore):
    """Keep LangGraph items in Chroma: exact keys, namespace prefixes, filters and search by meaning.

    Args:
        path: Folder of an embedded Chroma; made when missing.
        client: A Chroma client of your own, such as `chromadb.HttpClient(host, port)`, in place of `path`.
        embeddings: Any LangChain embeddings; by default hashed words, which need no download.

    Raises:
        MemoryStoreError: Another process owns the folder, or it cannot be opened.

    Example:
        >>> import chromadb
        >>> store = ChromaStore(client=chromadb.EphemeralClient())
        >>> store.put(("docs",), "a", {"text": "hello"})
        >>> store.get(("docs",), "a").value
        {'text': 'hello'}

    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        client: Any = None,
        embeddings: Embeddings | None = None,
    ) -> None:
        if (path is None) == (client is None):
            raise ValueError("give either a folder or a Chroma client")
        self._embeddings = embeddings or HashingEmbeddings()
        self._client = client or _open_folder(Path(os.fspath(path or "")))
        size = len(self._embeddings.embed_query("size"))
        label = getattr(self._embeddings, "name", type(self._embeddings).__name__)
        self._collection = self._client.get_or_create_collection(
            f"cmat-{label}-{size}".lower()[:120],
            configuration={"hnsw": {"space": "cosine"}},
            embedding_function=None,  # Chroma's default one downloads a model at first use
        )

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations in order; puts that follow each other are written together."""
        results: list[Result] = []
        for putting, group in groupby(ops, key=lambda op: isinstance(op, PutOp)):
            if putting:
                puts = [op for op in group if isinstance(op, PutOp)]
                for start in range(0, len(puts), MAX_PUTS):
                    self._put(puts[start : start + MAX_PUTS])
                results += [None] * len(puts)
            else:
                results += [self._run(op) for op in group]
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations in order, off the event loop."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _run(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            return self._get(op)
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._list(op)
        raise ValueError(f"unknown operation {type(op).__name__}")

    def _get(self, op: GetOp) -> Item | None:
        found = self._collection.get(ids=[_id(op.namespace, op.key)], include=["metadatas", "documents"])
        items = [_item(d, m) for d, m in zip(found["documents"], found["metadatas"], strict=True)]
        return items[0] if items else None

    def _put(self, ops: Sequence[PutOp]) -> None:
        last = {_id(op.namespace, op.key): op for op in ops}  # of several for one key the last counts
        gone = [key for key, op in last.items() if op.value is None]
        kept = {key: op for key, op in last.items() if op.value is not None}
        if gone:
            self._collection.delete(ids=gone)
        if not kept:
            return
        known = self._collection.get(ids=list(kept), include=["metadatas"])
        created = {key: data["created"] for key, data in zip(known["ids"], known["metadatas"], strict=True)}
        now = datetime.now(UTC).isoformat()
        texts = [_text(op) for op in kept.values()]
        self._collection.upsert(
            ids=list(kept),
            embeddings=self._embeddings.embed_documents(texts),
            metadatas=[_metadata(op, created.get(key, now), now) for key, op in kept.items()],
            documents=[json.dumps(op.value) for op in kept.values()],
        )

    def _search(self, op: SearchOp) -> list[SearchItem]:
        where = [{f"ns{i}": part} for i, part in enumerate(op.namespace_prefix)]
        found = self._nearest(op, where) if op.query else self._newest(where)
        kept = [item for item in found if _matches(item.value, op.filter)]
        return kept[op.offset : op.offset + op.limit]

    def _nearest(self, op: SearchOp, where: list[Where]) -> list[SearchItem]:
        vector = self._embeddings.embed_query(op.query or "")
        wanted = op.limit + op.offset
        if not op.filter:
            # Chroma takes many times longer with `where`: first look whether the nearest of all are of this namespace.
            for times in (4, 16):
                near = [found for found in self._query(vector, times * wanted) if _is_in(found[1], op.namespace_prefix)]
                if len(near) >= wanted:
                    return [_search_item(*found) for found in near[:wanted]]
        # A filter looks into the values, which Chroma does not: then every item of the namespace is ranked.
        number = self._collection.count() if op.filter else wanted
        return [_search_item(*found) for found in self._query(vector, number, _all([*where, {"indexed": True}]))]

    def _query(
        self, vector: list[float], number: int, where: Where | None = None
    ) -> list[tuple[str, Mapping[str, Any], float]]:
        found = self._collection.query(
            query_embeddings=[vector],
            n_results=number,
            where=where,
            include=["metadatas", "documents", "distances"],
        )
        rows = zip(found["documents"][0], found["metadatas"][0], found["distances"][0], strict=True)
        return [(document, metadata, 1.0 - distance) for document, metadata, distance in rows]

    def _newest(self, where: list[Where]) -> list[SearchItem]:
        found = self._collection.get(where=_all(where), include=["metadatas", "documents"])
        items = [_search_item(d, m, None) for d, m in zip(found["documents"], found["metadatas"], strict=True)]
        return sorted(items, key=lambda item: item.updated_at, reverse=True)

    def _list(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        found = self._collection.get(include=["metadatas"])
        spaces = {tuple(json.loads(m["namespace"])) for m in found["metadatas"]}
        kept = [s for s in spaces if all(_fits(s, c) for c in op.match_conditions or ())]
        cut = sorted({s[: op.max_depth] for s in kept})
        return cut[op.offset : op.offset + op.limit]


def _open_folder(path: Path) -> Any:
    try:
        path.mkdir(parents=True, exist_ok=True)
        _own(path)
        return chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    except MemoryStoreError:
        raise
    except Exception as exc:  # Chroma raises its own, sqlite3's and Rust's errors here
        raise MemoryStoreError(f"cannot open the lesson store {path}: {exc}; check the folder or give another") from exc


def _own(path: Path) -> None:
    """Take the folder for this process until it ends."""
    name = str(path.resolve())
    if name in _owned:
        return
    lock = open(path / "owner.lock", "a+")  # noqa: SIM115 - held as long as the process lives
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise MemoryStoreError(
            f"{path} is in use by process {owner}; stop it, or share one server: "
            f"chroma run --path {path} --port 8000, then ChromaStore(client=chromadb.HttpClient(port=8000))"
        ) from exc
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    _owned[name] = lock


def _text(op: PutOp) -> str:
    """Return what a value is found by."""
    if op.index is False:
        return ""
    return "\n".join(text for path in op.index or ["$"] for text in get_text_at_path(op.value, path))


def _metadata(op: PutOp, created: str, updated: str) -> dict[str, Any]:
    return {
        "key": op.key,
        "namespace": json.dumps(op.namespace),
        "depth": len(op.namespace),
        "indexed": op.index is not False,
        "created": created,
        "updated": updated,
        **{f"ns{i}": part for i, part in enumerate(op.namespace)},
    }


def _is_in(metadata: Mapping[str, Any], prefix: tuple[str, ...]) -> bool:
    return metadata["indexed"] and all(metadata.get(f"ns{i}") == part for i, part in enumerate(prefix))


def _id(namespace: tuple[str, ...], key: str) -> str:
    return hashlib.sha256(json.dumps([namespace, key]).encode()).hexdigest()


def _all(conditions: Sequence[Where]) -> Where | None:
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    return {"$and": list(conditions)}


def _item(document: str, metadata: Mapping[str, Any]) -> Item:
    return Item(
        value=json.loads(document),
        key=metadata["key"],
        namespace=tuple(json.loads(metadata["namespace"])),
        created_at=datetime.fromisoformat(metadata["created"]),
        updated_at=datetime.fromisoformat(metadata["updated"]),
    )


def _search_item(document: str, metadata: Mapping[str, Any], score: float | None) -> SearchItem:
    item = _item(document, metadata)
    return SearchItem(
        namespace=item.namespace,
        key=item.key,
        value=item.value,
        created_at=item.created_at,
        updated_at=item.updated_at,
        score=score,
    )


_COMPARE = {
    "$eq": lambda left, right: left == right,
    "$ne": lambda left, right: left != right,
    "$gt": lambda left, right: left > right,
    "$gte": lambda left, right: left >= right,
    "$lt": lambda left, right: left < right,
    "$lte": lambda left, right: left <= right,
}


def _matches(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    return all(_holds(value.get(field), condition) for field, condition in (wanted or {}).items())


def _holds(actual: Any, condition: Any) -> bool:
    if not isinstance(condition, dict) or not any(name.startswith("$") for name in condition):
        return bool(actual == condition)
    for name, right in condition.items():
        if name not in _COMPARE:
            raise ValueError(f"unknown filter operator {name}; known: {', '.join(_COMPARE)}")
        with contextlib.suppress(TypeError):  # values of unlike types do not compare, so they do not match
            if _COMPARE[name](actual, right):
                continue
        return False
    return True


def _fits(space: tuple[str, ...], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if len(path) > len(space):
        return False
    part = space[: len(path)] if condition.match_type == "prefix" else space[len(space) - len(path) :]
    return all(wanted in ("*", actual) for wanted, actual in zip(path, part, strict=True))
