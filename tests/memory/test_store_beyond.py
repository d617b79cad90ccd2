"""What our store promises beyond LangGraph's in-memory one: times, expiry, order, and stores that do not mix."""

from __future__ import annotations

import asyncio
import time

import chromadb
import pytest
from langgraph.store.base import GetOp, PutOp, SearchOp
from stores import LASTING, OURS, keys, opener, values

from cmat_graph.memory.chroma import ChromaStore

SOON = 0.001
"""60 ms, in minutes."""


@pytest.fixture(params=OURS)
def open_store(request, tmp_path):
    return opener(request.param, request, tmp_path / "store")


@pytest.fixture
def store(open_store):
    with open_store() as opened:
        yield opened


# -- what the oracle does otherwise


def test_an_emptied_namespace_is_not_listed(store):  # InMemoryStore lists it, and what was only looked for
    store.put(("a",), "k", {})
    store.put(("b",), "k", {})
    store.delete(("a",), "k")
    store.get(("c",), "k")
    assert store.list_namespaces() == [("b",)]
    store.put(("a",), "k", {})
    assert store.list_namespaces() == [("a",), ("b",)]


def test_the_time_of_creation_stays(store):  # InMemoryStore's does not
    store.put(("a",), "k", {"v": 1})
    created = store.get(("a",), "k").created_at
    store.put(("a",), "k", {"v": 2})
    item = store.get(("a",), "k")
    assert item.created_at == created < item.updated_at
    assert store.search(("a",))[0].created_at == store.search(("a",), query="v")[0].created_at == created


def test_an_item_put_again_after_its_deletion_is_new(store):
    store.put(("a",), "k", {"v": 1})
    created = store.get(("a",), "k").created_at
    store.delete(("a",), "k")
    store.put(("a",), "k", {"v": 2})
    assert store.get(("a",), "k").created_at > created


def test_without_a_query_the_newest_comes_first(store):  # InMemoryStore's oldest does
    store.batch([PutOp(("a", str(i % 3)), str(i), {"v": i}) for i in range(9)])
    store.put(("a", "0"), "3", {"v": "changed"})
    assert keys(store.search(("a",))) == ["3", "8", "7", "6", "5", "4", "2", "1", "0"]
    assert keys(store.search(("a",), limit=2, offset=3)) == ["6", "5"]
    assert keys(store.search(("a",), filter={"v": {"$ne": 8}}, limit=2)) == ["3", "7"]


def test_equal_texts_in_one_batch_are_all_found(store):  # InMemoryStore refuses them
    store.batch([PutOp(("a",), str(i), {"text": "pears"}) for i in range(5)])
    found = store.search((), query="pears", limit=10)
    assert sorted(keys(found)) == list("01234")
    assert {round(item.score, 4) for item in found} == {found[0].score and round(found[0].score, 4)}


def test_paging_goes_on_into_the_items_without_vectors(store):  # InMemoryStore shows some of them twice
    store.batch([PutOp(("a",), str(i), {"text": f"pears {i}"}, index=None if i < 5 else False) for i in range(12)])
    pages = [store.search(("a",), query="pears", limit=3, offset=at) for at in range(0, 15, 3)]
    assert [len(page) for page in pages] == [3, 3, 3, 3, 0]
    assert {item.key for page in pages for item in page} == {str(i) for i in range(12)}
    assert [item.score is None for page in pages for item in page] == [False] * 5 + [True] * 7


def test_fewer_texts_leave_no_trace_of_the_others(store):  # InMemoryStore keeps their vectors
    store.put(("a",), "list", {"items": ["pears", "cars", "trains"]}, index=["items[*]"])
    store.put(("a",), "other", {"text": "some trains"}, index=["text"])
    assert keys(store.search(("a",), query="trains", limit=1)) == ["list"]
    store.put(("a",), "list", {"items": ["apples"]}, index=["items[*]"])
    assert keys(store.search(("a",), query="trains", limit=1)) == ["other"]
    assert keys(store.search(("a",), query="trains")) == ["other", "list"]
    store.put(("a",), "other", {"text": "some trains"}, index=False)
    assert keys(store.search(("a",), query="trains", limit=1)) == ["list"]
    found = store.search(("a",), query="trains")
    assert [(item.key, item.score is None) for item in found] == [("list", False), ("other", True)]


@pytest.mark.parametrize("value", [{}, {"v": None}, {"v": "word"}, {"v": [1]}, {"v": {"a": 1}}])
def test_what_does_not_compare_does_not_match(store, value):  # InMemoryStore raises from within `float`
    store.put(("a",), "odd", value)
    store.put(("a",), "k", {"v": 5})
    assert keys(store.search(("a",), filter={"v": {"$gt": 1}})) == ["k"]
    assert keys(store.search(("a",), filter={"v": {"$lt": 9}}, query="v")) == ["k"]


def test_a_value_changed_afterwards_by_the_caller_is_kept_as_it_was(store):
    value = {"list": [1]}
    store.put(("a",), "k", value)
    value["list"].append(2)
    store.get(("a",), "k").value["list"].append(3)
    assert store.get(("a",), "k").value == {"list": [1]}


def test_fields_of_the_store_are_what_is_searched(open_store):
    with open_store(fields=["task", "notes[*]"]) as store:
        store.put(("a",), "a", {"task": "pears", "other": "cars", "notes": ["trains"]})
        store.put(("a",), "b", {"task": "apples", "other": "pears"})
        assert keys(store.search((), query="trains", limit=1)) == ["a"]
        assert [round(i.score, 3) for i in store.search((), query="pears", limit=1)] == [1]
        assert store.search((), query="cars")[0].score < 0.9


# -- time to live


def test_an_expired_item_is_nowhere(store):
    assert store.supports_ttl
    store.put(("a",), "soon", {"text": "pears"}, ttl=SOON)
    store.put(("b",), "later", {"text": "pears"}, ttl=60)
    store.put(("b",), "never", {"text": "pears"}, ttl=None)
    time.sleep(0.3)
    assert store.get(("a",), "soon") is None
    assert sorted(keys(store.search(()))) == sorted(keys(store.search((), query="pears"))) == ["later", "never"]
    assert store.search(("a",)) == store.search(("a",), query="pears") == []
    assert store.list_namespaces() == [("b",)]


def test_a_sweep_deletes_what_expired_and_counts_it(store):
    store.batch([PutOp(("a",), str(i), {"v": i}, ttl=SOON if i < 3 else None) for i in range(5)])
    time.sleep(0.3)
    assert store.sweep_ttl() == 3
    assert store.sweep_ttl() == 0
    assert sorted(keys(store.search((), query="v"))) == ["3", "4"]


def test_expired_items_take_no_place_of_living_ones(store):
    store.batch([PutOp(("a",), f"old{i}", {"text": "green pears"}, ttl=SOON) for i in range(40)])
    store.batch([PutOp(("a",), f"new{i}", {"text": f"pears of another garden {i}"}) for i in range(5)])
    time.sleep(0.3)
    for query in (None, "green pears"):
        assert sorted(keys(store.search(("a",), query=query, limit=5))) == [f"new{i}" for i in range(5)]


def test_reading_an_item_lets_it_live_longer(store):
    for key in ("get", "get still", "search", "search still", "query"):
        store.put((key,), key, {"text": key}, ttl=0.04)
    time.sleep(1.4)
    assert store.get(("get",), "get")
    assert store.get(("get still",), "get still", refresh_ttl=False)
    assert store.search(("search",))
    assert store.search(("search still",), refresh_ttl=False)
    assert store.search(("query",), query="query")
    time.sleep(1.4)
    assert store.list_namespaces() == [("get",), ("query",), ("search",)]


def test_a_put_begins_a_new_time_to_live(store):
    store.put(("a",), "kept", {"v": 1}, ttl=SOON)
    store.put(("a",), "kept", {"v": 2})
    store.put(("a",), "soon", {"v": 1}, ttl=60)
    store.put(("a",), "soon", {"v": 2}, ttl=SOON)
    time.sleep(0.3)
    assert values(store.search(("a",))) == [{"v": 2}]
    assert store.get(("a",), "soon") is None


def test_the_store_may_give_every_item_a_time_to_live(open_store):
    with open_store(ttl={"default_ttl": 0.01, "refresh_on_read": False}) as store:
        store.put(("a",), "default", {})
        store.put(("a",), "kept", {}, ttl=None)
        assert store.get(("a",), "default") is not None
        time.sleep(0.8)
        assert store.get(("a",), "default") is None
        assert keys(store.search(())) == ["kept"]


def test_an_expired_item_can_be_put_again(store):
    store.put(("a",), "k", {"text": "pears"}, ttl=SOON)
    time.sleep(0.3)
    store.put(("a",), "k", {"text": "cars"})
    assert values(store.search((), query="cars")) == [{"text": "cars"}]
    store.sweep_ttl()
    assert store.get(("a",), "k").value == {"text": "cars"}


# -- more than one store


def test_two_stores_in_memory_do_not_see_each_other():
    client = chromadb.EphemeralClient()
    with ChromaStore(client=client) as one, ChromaStore(client=client) as other:
        one.put(("a",), "k", {"text": "pears"})
        assert other.search((), query="pears") == other.search(()) == []
        other.put(("a",), "k", {"text": "cars"})
        assert values(one.search((), query="cars")) == [{"text": "pears"}]


@pytest.mark.server
def test_two_folders_on_one_server_do_not_see_each_other(chroma, tmp_path):
    client = chromadb.HttpClient(*chroma)
    with ChromaStore(tmp_path / "1", client=client) as one, ChromaStore(tmp_path / "2", client=client) as other:
        one.put(("a",), "k", {"text": "pears"})
        assert other.search((), query="pears") == other.search(()) == []


@pytest.mark.parametrize("kind", LASTING)
def test_everything_is_there_when_it_is_opened_again(kind, request, tmp_path):
    open_store = opener(kind, request, tmp_path / "store")
    with open_store() as store:
        store.batch([PutOp(("a", str(i % 2)), str(i), {"text": f"number {i}"}) for i in range(20)])
        store.put(("a", "0"), "silent", {"text": "pears"}, index=False)
        store.put(("a", "0"), "soon", {"text": "pears"}, ttl=SOON)
        store.delete(("a", "1"), "1")
        before = store.search((), query="number 7", limit=50)
    with open_store() as store:
        assert store.get(("a", "1"), "1") is None
        assert store.get(("a", "0"), "2").value == {"text": "number 2"}
        after = store.search((), query="number 7", limit=50)
        assert {item.key for item in before} - {item.key for item in after} <= {"soon"}
        times = {item.key: (item.created_at, item.updated_at) for item in before}
        assert all(times[item.key] == (item.created_at, item.updated_at) for item in after)
        assert after[0].key == "7"


@pytest.mark.parametrize("kind", LASTING)
def test_items_go_from_one_store_into_another_with_their_times(kind, request, tmp_path):
    with opener(kind, request, tmp_path / "1")() as one, ChromaStore(tmp_path / "2") as other:
        one.batch([PutOp(("a", str(i % 3)), str(i), {"text": f"number {i}"}) for i in range(30)])
        one.put(("a", "0"), "0", {"text": "changed"}, index=False)
        assert other.restore(one.items()) == 30
        assert len(list(other.items(("a", "1")))) == 10
        copies = {(i.namespace, i.key): (i.value, i.created_at, i.updated_at) for i in other.items()}
        assert copies == {(i.namespace, i.key): (i.value, i.created_at, i.updated_at) for i in one.items()}
        assert other.search((), query="number 7")[0].key == "7"


# -- many at once


async def read_and_write(store):
    ops = [store.aput(("a",), str(i), {"text": f"item {i}"}) for i in range(30)]
    reads = [store.asearch(("a",), query="item 3", limit=3) for _ in range(10)]
    gets = [store.abatch([GetOp(("a",), "1"), SearchOp(("a",), limit=3)]) for _ in range(10)]
    await asyncio.gather(*ops, *reads, *gets)
    begun = last = time.monotonic()
    longest = 0.0
    writing = asyncio.create_task(store.abatch([PutOp(("b",), str(i), {"text": f"item {i}"}) for i in range(3000)]))
    while not writing.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    await writing
    return longest, last - begun


@pytest.mark.clock
def test_an_event_loop_is_not_held_up_by_a_large_batch(store):
    longest_pause, whole = asyncio.run(read_and_write(store))
    assert len(store.search((), limit=4000)) == 3030
    assert longest_pause < whole / 3
