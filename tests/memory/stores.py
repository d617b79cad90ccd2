"""The stores that the same stories are told to: LangGraph's own, and ours in each way it can be opened."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import chromadb
import pytest
import sqlalchemy as sa
from langgraph.store.base import BaseStore, SearchItem
from langgraph.store.memory import InMemoryStore

from cmat_graph.memory.chroma import ChromaStore, exact, searcher
from cmat_graph.memory.embeddings import HashingEmbeddings

SERVED = [pytest.param("server", marks=pytest.mark.server), pytest.param("postgres", marks=pytest.mark.server)]
LASTING = ["folder", *SERVED]
"""What outlives the process. `server` has its items in a folder, `postgres` in a database; both a Chroma server."""
OURS = ["memory", *LASTING, "index", "late index"]
"""`memory` is of this process alone; `index` is a folder searched through Chroma even where little is in it, and
`late index` one of which Chroma learns some writes later."""
ALL = ["InMemoryStore", *OURS]

Open = Callable[..., BaseStore]


def oracle() -> InMemoryStore:
    """Open LangGraph's store as it is."""
    return InMemoryStore(index={"dims": 384, "embed": HashingEmbeddings()})


class Mended(InMemoryStore):
    """LangGraph's store without three errors of its 1.2.22, so that random operations can be compared with it.

    It keeps the vectors of what an item no longer says, refuses two equal texts in one batch, and lists namespaces
    that hold nothing.
    """

    def __init__(self) -> None:
        super().__init__(index={"dims": 384, "embed": HashingEmbeddings()})

    def _extract_texts(self, put_ops: Any) -> Any:
        for namespace, key in put_ops:
            self._vectors[namespace].pop(key, None)
        return super()._extract_texts(put_ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: list[list[float]]) -> None:
        each = [vector for places, vector in zip(to_embed.values(), embeddings, strict=True) for _ in places]
        super()._insertinmem_store(to_embed, each)

    def _handle_list_namespaces(self, op: Any) -> list[tuple[str, ...]]:
        for namespace in [space for space, items in self._data.items() if not items]:
            del self._data[namespace]
        return super()._handle_list_namespaces(op)


def opener(kind: str, request: pytest.FixtureRequest, folder: Path) -> Open:
    """Return what opens a store of one kind, the same one each time if it lasts."""
    if kind == "InMemoryStore":
        return oracle
    if kind == "memory":
        return lambda **more: ChromaStore(client=chromadb.EphemeralClient(), **more)
    if kind.endswith("index"):
        search_by_index_alone(request.getfixturevalue("monkeypatch"), lag=1 if kind == "index" else 3)
    if kind in ("folder", "index", "late index"):
        return lambda **more: ChromaStore(folder, **more)
    host, port = request.getfixturevalue("chroma")
    if kind == "server":
        return lambda **more: ChromaStore(folder, client=chromadb.HttpClient(host, port), **more)
    records = database(request.getfixturevalue("postgres"))
    return lambda **more: ChromaStore(records=records, client=chromadb.HttpClient(host, port), **more)


def search_by_index_alone(monkeypatch: pytest.MonkeyPatch, *, lag: int = 1) -> None:
    """Let no namespace be small enough for an exact search, and Chroma learn after so many writes."""
    monkeypatch.setattr(exact, "MAX_VECTORS", 0)
    monkeypatch.setattr(searcher, "LEARN_AFTER", lag)


def database(server: str) -> str:
    """Make an empty schema on a PostgreSQL server; return the URL that leads to it."""
    name = f"t{uuid.uuid4().hex}"
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    engine.dispose()
    url = sa.make_url(server).update_query_dict({"options": f"-csearch_path={name}"})
    return url.render_as_string(hide_password=False)


def assert_same_ranking(
    ours: Sequence[SearchItem], theirs: Sequence[SearchItem], *, limit: int, offset: int = 0
) -> None:
    """Hold a page of ours against all the oracle found: the same scores, borne by the same items; ties may swap."""
    page = theirs[offset : offset + limit]
    known = {(item.namespace, item.key): item for item in theirs}
    found = [(item.namespace, item.key) for item in ours]
    assert len(found) == len(set(found)) == len(page), (found, [(item.namespace, item.key) for item in page])
    for mine, its in zip(ours, page, strict=True):
        same = known[mine.namespace, mine.key]
        assert mine.value == same.value
        assert near(mine.score, its.score), (mine, its)
        assert near(mine.score, same.score), (mine, same)


def near(left: float | None, right: float | None) -> bool:
    """Compare two scores."""
    return left == right if left is None or right is None else abs(left - right) < 1e-4


def keys(items: Sequence[Any]) -> list[str]:
    """Return the keys of items, in their order."""
    return [item.key for item in items]


def values(items: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return the values of items, in their order."""
    return [item.value for item in items]
