"""Search, held by LangGraph's own in-memory store and by ours: prefixes, pages, filters, and scores by meaning."""

from __future__ import annotations

import itertools

import pytest
from langgraph.store.base import PutOp
from stores import assert_same_ranking, keys, oracle

TOPICS = ["red apples", "green pears", "fast cars", "slow trains", "SQL counts rows", "python lists"]
SENTENCES = [f"{first} and {second} {i}" for i, (first, second) in enumerate(itertools.permutations(TOPICS, 2))]
QUERIES = ["green apples", "count the rows of a table", "trains", "nothing of the kind", "é😀", "\n\t ", "x" * 3000]


# -- search without a query


def test_a_prefix_is_of_whole_labels(store):
    for namespace in [("a",), ("ab",), ("a", "b"), ("b", "a"), ("a", "bc")]:
        store.put(namespace, "/".join(namespace), {})
    assert set(keys(store.search(("a",)))) == {"a", "a/b", "a/bc"}
    assert keys(store.search(("a", "b"))) == ["a/b"]
    assert set(keys(store.search(()))) == {"a", "ab", "a/b", "b/a", "a/bc"}
    assert store.search(("a", "b", "c")) == store.search(("none",)) == []


def test_a_limit_and_an_offset_cut_the_result(store):
    store.batch([PutOp(("a",), str(i), {"v": i}) for i in range(12)])
    assert len(store.search(("a",))) == 10
    assert len(store.search(("a",), limit=100)) == 12
    assert len(store.search(("a",), limit=5, offset=10)) == 2
    assert store.search(("a",), limit=0) == store.search(("a",), offset=12) == []


@pytest.mark.parametrize("query", [None, "number seven"])
@pytest.mark.parametrize("filter", [None, {"odd": True}])
def test_paging_shows_each_item_once(request, store, query, filter):
    store.batch([PutOp(("a", str(i % 7)), str(i), {"text": f"number {i}", "odd": i % 2 == 1}) for i in range(250)])
    pages = [store.search(("a",), limit=30, offset=at, query=query, filter=filter) for at in range(0, 300, 30)]
    seen = [item.key for page in pages for item in page]
    wanted = {str(i) for i in range(250) if not filter or i % 2}
    assert len(seen) == len(wanted)
    if query and "index" in request.node.callspec.params["store"]:  # each page is cut from an approximate ranking
        assert len(set(seen)) > 0.9 * len(wanted)
    else:
        assert set(seen) == wanted


# -- filters

KEPT = {
    "int": 3, "float": 3.0, "half": 3.5, "negative": -1, "zero": 0, "big": 10**15 + 1, "bigger": 10**15 + 2,
    "tiny": 1e-9, "true": True, "false": False, "text": "3", "word": "it's 100%", "upper": "A", "lower": "a",
    "none": None, "empty": "", "list": [1, 2, {"a": 1}], "other list": [1, 2], "no list": [],
    "map": {"a": 1, "b": {"c": 2}}, "same": {"b": {"c": 2}, "a": 1},
    "deeper": {"a": 2, "b": {"c": 5, "d": [1]}}, "no map": {},
}  # fmt: skip
EQUALS = [*KEPT.values(), 4, "B", [1], [1, 2, {"a": 2}], {"a": 1}, {"b": {"c": 2}}, {"b": {"c": 9}}, {"a": None}]
NUMBERS = ["int", "float", "half", "negative", "zero", "big", "bigger", "tiny", "true", "false", "text"]
NESTED = [{"b": {"c": {"$gt": 2}}}, {"b": {"c": {"$gte": 2, "$lt": 5}}}, {"a": {"$ne": 1}}, {"b": {"$eq": {"c": 2}}}]
LISTED = [[{"$gte": 1}, 2], [1, {"$ne": 2}], [1, 2, {"a": {"$lt": 2}}], (1, 2)]


def assert_filters_alike(store, kept, filters):
    """Compare with LangGraph's own store what each filter lets through."""
    theirs = oracle()
    for key, value in kept.items():
        for one in (store, theirs):
            one.put(("f",), key, value, index=False)
    for filter in filters:
        found = [sorted(keys(one.search((), filter=filter, limit=100))) for one in (store, theirs)]
        assert found[0] == found[1], filter


def test_a_bare_value_and_the_equalities_compare_as_in_the_oracle(store):
    kept = {key: {"v": value} for key, value in KEPT.items()} | {"missing": {}}
    filters = [{"v": wanted} for wanted in EQUALS]
    filters += [{"v": {operator: wanted}} for wanted in EQUALS for operator in ("$eq", "$ne")]
    assert_filters_alike(store, kept, filters)


def test_nested_values_compare_as_in_the_oracle(store):
    assert_filters_alike(
        store, {key: {"v": value} for key, value in KEPT.items()}, [{"v": f} for f in [*NESTED, *LISTED]]
    )


def test_order_compares_numbers_as_in_the_oracle(store):
    kept = {key: {"v": KEPT[key]} for key in NUMBERS}
    operators, bounds = ("$gt", "$gte", "$lt", "$lte"), [3, 3.0, 3.4, -1, 0, 1, 10**15 + 1, 1e-9, True, "3"]
    filters = [{"v": {operator: bound}} for operator in operators for bound in bounds]
    filters += [{"v": {low: 0, high: 3}} for low in ("$gt", "$gte") for high in ("$lt", "$lte")]
    filters += [{"v": {"$gt": 0, "$ne": 3}}, {"v": {"$gte": 4, "$lte": 3}}]
    assert_filters_alike(store, kept, filters)


def test_several_fields_are_all_required(store):
    kept = {f"{i}": {"n": i, "even": i % 2 == 0, "word": "ab"[i % 3 == 0], "odd key.$ '%": i} for i in range(12)}
    filters = [
        {"n": {"$gt": 2}, "even": True},
        {"n": {"$gt": 2, "$lt": 9}, "even": False, "word": "b"},
        {"n": {"$lte": 5}, "none": None},
        {"odd key.$ '%": 7},
        {"odd key.$ '%": {"$gte": 7}, "word": {"$ne": "b"}},
        {},
    ]
    assert_filters_alike(store, kept, filters)


def test_a_filter_comes_before_the_limit(store):
    store.batch([PutOp(("a",), str(i), {"text": f"apples {i}", "rare": i % 50 == 0}) for i in range(200)])
    assert set(keys(store.search(("a",), filter={"rare": True}, limit=4))) == {"0", "50", "100", "150"}
    assert set(keys(store.search(("a",), query="apples 7", filter={"rare": True}, limit=4))) == {
        "0",
        "50",
        "100",
        "150",
    }
    assert len(store.search(("a",), query="apples 7", filter={"rare": True}, limit=3, offset=2)) == 2


def test_an_unknown_operator_is_an_error(store):
    store.put(("a",), "k", {"v": 1})
    with pytest.raises(ValueError, match=r"\$near"):
        store.search(("a",), filter={"v": {"$near": 1}})
    with pytest.raises(ValueError, match=r"\$in"):
        store.search(("a",), query="v", filter={"v": {"$gt": 0, "$in": [1]}})


# -- search by query


@pytest.fixture(scope="module")
def sentences():
    """Sentences in three namespaces, in LangGraph's own store."""
    theirs = oracle()
    theirs.batch(put_sentences())
    return theirs


def put_sentences():
    return [PutOp(("s", "xyz"[i % 3]), str(i), {"text": text, "n": i}) for i, text in enumerate(SENTENCES)]


@pytest.mark.parametrize("prefix", [(), ("s",), ("s", "y")])
@pytest.mark.parametrize("filter", [None, {"n": {"$gte": 15}}])
def test_scores_and_order_are_those_of_the_oracle(store, sentences, prefix, filter):
    store.batch(put_sentences())
    for query in QUERIES:
        theirs = sentences.search(prefix, query=query, filter=filter, limit=100)
        for limit, offset in [(100, 0), (3, 0), (4, 5), (7, 8)]:
            ours = store.search(prefix, query=query, filter=filter, limit=limit, offset=offset)
            assert_same_ranking(ours, theirs, limit=limit, offset=offset)


def test_an_item_scores_as_its_best_text(store):
    theirs = oracle()
    people = [
        ["Ada writes programs", "Bo grows pears"],
        ["Cy drives cars"],
        [],
        ["Di grows apples", "Ed reads", "Flo sings"],
    ]
    for i, names in enumerate(people):
        for one in (store, theirs):
            value = {"items": [{"name": name} for name in names], "title": f"group {i}"}
            one.put(("p",), str(i), value, index=["items[*].name", "title"])
    for query in ["grows pears", "Flo sings", "group 2", "Cy drives cars"]:
        found = store.search(("p",), query=query)
        assert_same_ranking(found, theirs.search(("p",), query=query), limit=10)
    assert keys(store.search(("p",), query="Flo sings", limit=1)) == ["3"]
    assert store.search(("p",), query="Cy drives cars")[0].score == pytest.approx(1, abs=1e-4)


def test_an_item_is_found_by_the_named_paths_only(store):
    store.put(("p",), "a", {"text": "pears", "note": "cars"}, index=["text"])
    store.put(("p",), "b", {"text": "cars", "note": "pears"}, index=["note", "missing.path[0]"])
    found = store.search(("p",), query="pears")
    assert [item.score for item in found] == pytest.approx([1, 1], abs=1e-4)
    assert store.search(("p",), query="cars")[0].score < 0.9


def test_items_without_vectors_come_after_those_with(store):
    store.put(("q",), "silent", {"text": "apples"}, index=False)
    store.put(("q",), "far", {"text": "quite another matter"})
    store.put(("q",), "near", {"text": "apples"})
    store.put(("q",), "nothing there", {"text": "apples"}, index=["none"])
    found = store.search(("q",), query="apples")
    assert keys(found[:2]) == ["near", "far"]
    assert {item.key: item.score for item in found[2:]} == {"silent": None, "nothing there": None}
    assert keys(store.search(("q",), query="apples", limit=1)) == ["near"]


def test_a_new_value_is_found_by_its_new_text_only(store):
    store.put(("q",), "changed", {"text": "apples and pears"})
    store.put(("q",), "other", {"text": "a garden of apples"})
    assert keys(store.search(("q",), query="apples and pears", limit=1)) == ["changed"]
    store.put(("q",), "changed", {"text": "four wheels"})
    assert keys(store.search(("q",), query="apples and pears", limit=1)) == ["other"]
    assert keys(store.search(("q",), query="four wheels", limit=1)) == ["changed"]
    found = store.search(("q",), query="apples and pears")
    assert keys(found) == ["other", "changed"]
    assert keys(store.search(("q",), query="four wheels")) == ["changed", "other"]


def test_nested_values_are_found_by_all_they_say(store):
    store.put(("q",), "a", {"deep": {"er": ["four red wheels"]}})
    store.put(("q",), "b", {"deep": {"er": ["pears"]}})
    assert keys(store.search((), query="red wheels", limit=1)) == ["a"]
