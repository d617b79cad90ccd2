"""One contract for LangGraph stores, held by LangGraph's own in-memory store and by ours."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.memory import InMemoryStore

from cmat_graph.errors import MemoryStoreError
from cmat_graph.memory.chroma import ChromaStore
from cmat_graph.memory.embeddings import HashingEmbeddings


def oracle():
    return InMemoryStore(index={"dims": 384, "embed": HashingEmbeddings()})


@pytest.fixture(params=["InMemoryStore", "ChromaStore"])
def store(request, tmp_path):
    return oracle() if request.param == "InMemoryStore" else ChromaStore(tmp_path / "store")


def test_puts_gets_and_deletes(store):
    store.put(("a", "b"), "k", {"text": "one", "deep": {"x": [1, None]}})
    assert store.get(("a", "b"), "k").value == {"text": "one", "deep": {"x": [1, None]}}
    assert store.get(("a",), "k") is None
    store.put(("a", "b"), "k", {"text": "two"})
    assert store.get(("a", "b"), "k").value == {"text": "two"}
    store.delete(("a", "b"), "k")
    assert store.get(("a", "b"), "k") is None


def test_keeps_the_time_of_creation(tmp_path):  # InMemoryStore does not
    store = ChromaStore(tmp_path)
    store.put(("a",), "k", {"v": 1})
    created = store.get(("a",), "k").created_at
    store.put(("a",), "k", {"v": 2})
    item = store.get(("a",), "k")
    assert item.created_at == created
    assert item.updated_at >= created


def test_searches_under_a_prefix(store):
    store.put(("a", "x"), "1", {"v": 1})
    store.put(("a", "y"), "2", {"v": 2})
    store.put(("b",), "3", {"v": 3})
    assert {item.key for item in store.search(("a",))} == {"1", "2"}
    assert {item.key for item in store.search(())} == {"1", "2", "3"}
    assert len(store.search((), limit=2)) == 2
    assert store.search(("none",)) == []


def test_filters_by_value(store):
    for i in range(5):
        store.put(("n",), str(i), {"v": i, "even": i % 2 == 0})
    assert {i.key for i in store.search(("n",), filter={"even": True})} == {"0", "2", "4"}
    assert {i.key for i in store.search(("n",), filter={"v": {"$gte": 3}})} == {"3", "4"}
    assert {i.key for i in store.search(("n",), filter={"v": {"$gt": 1, "$lt": 3}})} == {"2"}
    assert {i.key for i in store.search(("n",), filter={"v": {"$ne": 0}})} == {"1", "2", "3", "4"}


def test_finds_the_nearest_by_query(store):
    store.put(("q",), "fruit", {"text": "apples and pears in the garden"})
    store.put(("q",), "cars", {"text": "a red car with four wheels"})
    store.put(("other",), "fruit", {"text": "apples and pears in the garden"})
    best, second = store.search(("q",), query="pears in my garden")
    assert (best.key, second.key) == ("fruit", "cars")
    assert best.score > second.score


def test_an_item_that_is_not_indexed_is_not_found_by_query(store):
    store.put(("q",), "a", {"text": "apples"}, index=False)
    store.put(("q",), "b", {"text": "apples"})
    assert [item.key for item in store.search(("q",), query="apples", limit=1)] == ["b"]
    assert store.get(("q",), "a") is not None


def test_lists_namespaces(store):
    for space in (("a", "x", "1"), ("a", "y", "1"), ("b", "x")):
        store.put(space, "k", {})
    assert store.list_namespaces() == [("a", "x", "1"), ("a", "y", "1"), ("b", "x")]
    assert store.list_namespaces(prefix=("a",), max_depth=2) == [("a", "x"), ("a", "y")]
    assert store.list_namespaces(suffix=("x",)) == [("b", "x")]
    assert store.list_namespaces(prefix=("*", "x")) == [("a", "x", "1"), ("b", "x")]


async def _use_async(store):
    await store.aput(("a",), "k", {"v": 1})
    return await store.aget(("a",), "k")


def test_works_async(store):
    import asyncio

    assert asyncio.run(_use_async(store)).value == {"v": 1}


_KEYS = st.sampled_from(["a", "b", "c"])
_SPACES = st.sampled_from([("x",), ("x", "y"), ("z",)])
_VALUES = st.none() | st.dictionaries(st.sampled_from(["p", "q"]), st.integers(0, 3) | st.text(max_size=3), max_size=2)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(_SPACES, _KEYS, _VALUES), max_size=12))
def test_any_sequence_of_writes_ends_as_in_the_oracle(writes):
    import chromadb

    name = uuid.uuid4().hex  # all in-memory Chroma clients of a process share one database
    ours, theirs = ChromaStore(client=chromadb.EphemeralClient()), oracle()
    for space, key, value in writes:
        for store in (ours, theirs):
            store.put((name, *space), key, value)
    found = [
        {(item.namespace, item.key, str(item.value)) for item in store.search((name,), limit=100)}
        for store in (ours, theirs)
    ]
    assert found[0] == found[1]


def test_survives_a_restart(tmp_path):
    code = (
        "from cmat_graph.memory.chroma import ChromaStore\n"
        f"ChromaStore({str(tmp_path / 's')!r}).put(('a',), 'k', {{'text': 'kept'}})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ChromaStore(tmp_path / "s").search(("a",), query="kept")[0].value == {"text": "kept"}


def test_a_second_process_is_refused_and_told_of_the_server(tmp_path):
    ChromaStore(tmp_path / "s")
    code = (
        "from cmat_graph.memory.chroma import ChromaStore\n"
        f"try: ChromaStore({str(tmp_path / 's')!r})\n"
        "except OSError as exc: print(exc)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "in use by process" in told
    assert "chroma run --path" in told


def test_a_folder_that_cannot_be_made_names_the_fix(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MemoryStoreError, match="check the folder"):
        ChromaStore(tmp_path / "file" / "store")
