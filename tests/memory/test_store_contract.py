"""One contract for LangGraph stores, held by LangGraph's own in-memory store and by ours, however it is opened."""

from __future__ import annotations

import asyncio
import random

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from stores import keys, oracle, values

DEEP = {
    "text": "one",
    "list": [1, [2.5, {"x": None}], "é"],
    "map": {"a": {"b": {"c": [True, False]}}},
    "": 0,
    "none": None,
}
ODD = [
    "A", "a", "ab", "a/b", "a\\b", "it's", 'say "hi"', "new\nline", "tab\t", " spaced ", "100%", "under_score", "a_b",
    "aXb", "*", "?", "[0]", "{x}", "$", "null", "0", "-1", "; DROP TABLE items;--", "é", "e\u0301", "ß", "SS", "日本",
    "😀", "\u202eflip", "\x01", "\x1f", "|", ",", "long" * 2000, "long" * 2000 + "!",
]  # fmt: skip


# -- put, get, delete


def test_an_item_comes_back_as_it_was_put(store):
    store.put(("a", "b"), "k", DEEP)
    item = store.get(("a", "b"), "k")
    assert (item.value, item.key, item.namespace) == (DEEP, "k", ("a", "b"))
    assert store.get(("a",), "k") is None
    assert store.get(("a", "b"), "other") is None


def test_an_empty_value_is_an_item(store):
    store.put(("a",), "k", {})
    assert store.get(("a",), "k").value == {}
    assert keys(store.search(("a",))) == ["k"]


def test_a_second_put_replaces_the_whole_value(store):
    store.put(("a",), "k", {"x": 1, "y": 2})
    store.put(("a",), "k", {"x": 3})
    assert store.get(("a",), "k").value == {"x": 3}
    assert values(store.search(("a",))) == [{"x": 3}]


def test_a_deleted_item_is_nowhere(store):
    store.put(("a",), "k", {"text": "pears"})
    store.put(("a",), "other", {"text": "cars"})
    store.delete(("a",), "k")
    assert store.get(("a",), "k") is None
    assert keys(store.search(("a",))) == keys(store.search(("a",), query="pears")) == ["other"]


def test_deleting_what_is_not_there_is_no_error(store):
    store.delete(("a",), "k")
    store.put(("a",), "k", {"v": 1})
    store.delete(("a",), "other")
    assert store.get(("a",), "k").value == {"v": 1}


def test_a_deleted_item_can_be_put_again(store):
    store.put(("a",), "k", {"text": "pears"})
    store.delete(("a",), "k")
    store.put(("a",), "k", {"text": "cars"})
    assert values(store.search((), query="cars")) == [{"text": "cars"}]


def test_times_are_aware_and_grow(store):
    store.put(("a",), "k", {"v": 1})
    first = store.get(("a",), "k")
    store.put(("a",), "k", {"v": 2})
    second = store.get(("a",), "k")
    assert first.created_at.tzinfo is not None
    assert first.created_at <= first.updated_at < second.updated_at


# -- names


def test_any_character_may_stand_in_a_label(store):
    store.batch([PutOp((label, "end"), "k", {"label": i}) for i, label in enumerate(ODD)])
    for i, label in enumerate(ODD):
        assert store.get((label, "end"), "k").value == {"label": i}
        assert values(store.search((label,))) == [{"label": i}], label
        assert values(store.search((label,), query="label")) == [{"label": i}], label
    assert store.list_namespaces() == sorted((label, "end") for label in ODD)


def test_any_character_may_stand_in_a_key(store):
    odd = [*ODD, "", "a.b", ".", "\x00", "a\x00b"]
    for i, key in enumerate(odd):
        store.put(("a",), key, {"key": i})
    assert [store.get(("a",), key).value for key in odd] == [{"key": i} for i in range(len(odd))]
    assert sorted(keys(store.search((), limit=100))) == sorted(odd)


def test_any_character_may_stand_in_a_value(store):
    value = {label: label for label in [*ODD, "\x00", "a.b"]}
    store.put(("a",), "k", value)
    assert store.get(("a",), "k").value == value
    assert values(store.search((), query="label")) == [value]


def test_names_that_would_read_alike_when_joined_stay_apart(store):
    places = [
        (("a", "b"), "c"),
        (("a",), "b/c"),
        (("a/b",), "c"),
        (("a",), '", "b'),
        (("a", "b", "c"), ""),
        (("a",), "b"),
    ]
    for i, (namespace, key) in enumerate(places):
        store.put(namespace, key, {"v": i})
    assert [store.get(*place).value["v"] for place in places] == list(range(len(places)))


# -- batches


def test_reads_of_a_batch_see_what_was_before_it(store):
    store.put(("a",), "old", {"text": "pears"})
    ops = [
        GetOp(("a",), "old"),
        PutOp(("a",), "new", {"text": "apples"}),
        GetOp(("a",), "new"),
        PutOp(("a",), "old", None),
        SearchOp(("a",)),
        SearchOp(("a",), query="apples"),
        ListNamespacesOp((MatchCondition("prefix", ("a",)),)),
        PutOp(("b",), "k", {"text": "cars"}),
        GetOp(("a",), "old"),
        ListNamespacesOp((MatchCondition("prefix", ("b",)),)),
    ]
    first, put, second, deleted, listed, found, spaces, _, third, none = store.batch(ops)
    assert (first.value, third.value) == ({"text": "pears"}, {"text": "pears"})
    assert (put, second, deleted) == (None, None, None)
    assert keys(listed) == keys(found) == ["old"]
    assert (spaces, none) == ([("a",)], [])
    assert set(keys(store.search(()))) == {"new", "k"}


def test_of_several_puts_of_a_key_the_last_counts(store):
    store.put(("a",), "gone", {"v": 0})
    store.batch(
        [
            PutOp(("a",), "k", {"v": 1}),
            PutOp(("a",), "gone", {"v": 2}),
            PutOp(("b",), "k", {"v": 3}),
            PutOp(("a",), "k", {"v": 4}),
            PutOp(("a",), "gone", None),
            PutOp(("a",), "back", None),
            PutOp(("a",), "back", {"v": 5}),
        ]
    )
    assert {(item.namespace, item.key): item.value["v"] for item in store.search(())} == {
        (("a",), "k"): 4,
        (("b",), "k"): 3,
        (("a",), "back"): 5,
    }


def test_an_empty_batch_is_no_error(store):
    assert store.batch([]) == []


def test_a_large_batch_is_written_whole(store):
    store.batch(PutOp(("big", str(i % 3)), str(i), {"v": i}, index=False) for i in range(6000))
    assert store.get(("big", "2"), "5999").value == {"v": 5999}
    assert len(store.search(("big",), limit=10_000)) == 6000


# -- namespaces

SPACES = [
    ("a", "x", "1"),
    ("a", "x", "2"),
    ("a", "y", "1"),
    ("a",),
    ("ab", "x"),
    ("B", "x", "1"),
    ("é", "x"),
    ("b", "*", "1"),
]
LISTINGS = [
    {},
    {"prefix": ("a",)},
    {"prefix": ("a", "x")},
    {"prefix": ("*", "x")},
    {"prefix": ("a", "*", "1")},
    {"prefix": ("b", "*")},
    {"suffix": ("1",)},
    {"suffix": ("x", "*")},
    {"suffix": ("*", "1")},
    {"suffix": ("a", "y", "1")},
    {"prefix": ("a",), "suffix": ("1",)},
    {"prefix": ("*",), "suffix": ("x", "*")},
    {"prefix": ("a", "x", "1", "more")},
    {"suffix": ("more", "a", "x", "1")},
    {"max_depth": 1},
    {"max_depth": 2},
    {"max_depth": 9},
    {"prefix": ("a",), "max_depth": 2, "limit": 2},
    {"suffix": ("1",), "max_depth": 1},
    {"limit": 3},
    {"limit": 3, "offset": 2},
    {"limit": 3, "offset": 7},
    {"max_depth": 1, "limit": 2, "offset": 1},
    {"limit": 0},
]


@pytest.mark.parametrize("seed", range(2))
def test_namespaces_are_listed_as_by_the_oracle(store, seed):
    theirs = oracle()
    spaces = random.Random(seed).sample(SPACES, len(SPACES))
    for one in (store, theirs):
        one.batch([PutOp(space, key, {}, index=False) for space in spaces for key in "kl"])
    for words in LISTINGS:
        assert store.list_namespaces(**words) == theirs.list_namespaces(**words), words


def test_more_than_a_hundred_namespaces_are_listed_in_pages(store):
    store.batch([PutOp((f"n{i:03}",), "k", {}, index=False) for i in range(250)])
    assert len(store.list_namespaces()) == 100
    pages = [store.list_namespaces(offset=at) for at in (0, 100, 200)]
    assert [space for page in pages for space in page] == [(f"n{i:03}",) for i in range(250)]


# -- async


async def use(store):
    await store.aput(("a",), "k", {"text": "apples"})
    await asyncio.gather(*(store.aput(("many", str(i % 5)), str(i), {"text": f"item {i}"}) for i in range(50)))
    await store.aput(("a",), "gone", {})
    await store.adelete(("a",), "gone")
    item = await store.aget(("a",), "k")
    found = await store.asearch((), query="apples", limit=100)
    batched = await store.abatch([GetOp(("many", "1"), "1"), SearchOp(("many",), limit=100)])
    return item, found, batched, await store.alist_namespaces(prefix=("many",))


def test_all_is_there_in_an_event_loop_too(store):
    item, found, (got, listed), spaces = asyncio.run(use(store))
    assert item.value == {"text": "apples"}
    assert found[0].key == "k"
    assert len(found) == 51
    assert got.value == {"text": "item 1"}
    assert {item.key for item in listed} == {str(i) for i in range(50)}
    assert spaces == [("many", str(i)) for i in range(5)]
