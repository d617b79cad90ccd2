"""What a store cannot take: a clear error or a defined result each, and nothing half done."""

from __future__ import annotations

import json
import math
import time

import chromadb
import pytest
from langgraph.store.base import InvalidNamespaceError, PutOp, SearchOp
from stores import ALL, keys, opener

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.chroma import ChromaStore


@pytest.fixture(params=["memory", "folder", "index", pytest.param("postgres", marks=pytest.mark.server)])
def ours(request, tmp_path):
    with opener(request.param, request, tmp_path / "store")() as store:
        yield store


# -- arguments


def test_arguments_that_cannot_work_together_are_refused(tmp_path):
    persistent = chromadb.PersistentClient(str(tmp_path / "chroma"))
    for words in ({}, {"records": "sqlite://"}, {"client": persistent}):
        with pytest.raises(ConfigurationError, match="ChromaStore"):
            ChromaStore(**words)


@pytest.mark.server
def test_a_server_alone_has_no_place_for_the_items(chroma):
    with pytest.raises(ConfigurationError, match="records="):
        ChromaStore(client=chromadb.HttpClient(*chroma))


# -- values


def test_a_value_over_the_limit_is_refused_with_the_limit(ours):
    large = {"text": "x" * 1_000_000}
    with pytest.raises(ValueError, match="500,000") as told:
        ours.put(("a",), "large", large)
    assert "max_bytes" in str(told.value)
    with pytest.raises(ValueError, match="'large'"):
        ours.batch([PutOp(("a",), "small", {"v": 1}), PutOp(("a",), "large", large)])
    assert ours.search(()) == []
    ours.put(("a",), "fits", {"text": "x" * 400_000})
    assert len(ours.get(("a",), "fits").value["text"]) == 400_000


def test_the_limit_is_one_of_bytes_and_can_be_set(tmp_path):
    with ChromaStore(tmp_path / "store", max_bytes=100) as store:
        store.put(("a",), "k", {"text": "x" * 80})
        for value in ({"text": "x" * 100}, {"text": "é" * 60}, {"text": "😀" * 30}):
            with pytest.raises(ValueError, match="100"):
                store.put(("a",), "k", value)


class Opaque:
    pass


@pytest.mark.parametrize("value", [{1, 2}, Opaque(), b"bytes", {"deep": [{"er": {3}}]}, 1j])
def test_a_value_that_is_not_json_is_refused_and_nothing_of_its_batch_is_stored(ours, value):
    with pytest.raises((TypeError, ValueError), match=r"'bad'.*JSON"):
        ours.batch(
            [PutOp(("a",), "good", {"v": 1}), PutOp(("a",), "bad", {"v": value}), PutOp(("a",), "last", {"v": 2})]
        )
    assert ours.search(()) == []
    assert ours.list_namespaces() == []


def test_a_value_without_end_is_refused(ours):
    circle, deep = {}, {}
    circle["circle"] = circle
    for _ in range(100_000):
        deep = {"deep": deep}
    for value in (circle, deep):
        with pytest.raises(ValueError, match="'bad'"):
            ours.put(("a",), "bad", value)
    assert ours.search(()) == []


@pytest.mark.parametrize("value", [[1, 2], "text", 5])
def test_a_value_that_is_no_mapping_is_refused(ours, value):
    with pytest.raises((TypeError, ValueError), match=r"'bad'|mapping|dict"):
        ours.put(("a",), "bad", value)
    assert ours.search(()) == []


@pytest.mark.parametrize("text", ["\ud800 lone", "\udcff"])
def test_half_a_character_is_kept_wherever_it_stands(ours, text):
    for namespace, key, value in [(("a",), "k", {"text": text}), (("a",), f"k{text}", {}), (("a", text), "k", {})]:
        ours.put(namespace, key, value)
        assert ours.get(namespace, key).value == value
    ours.put(("b",), "good", {"text": "pears"})
    assert len(ours.search((), query=f"pears {text}")) == 4


@pytest.mark.parametrize("ttl", [math.nan, math.inf, 1e17, "soon"])
def test_a_time_to_live_that_is_no_time_is_refused(ours, ttl):
    with pytest.raises((TypeError, ValueError), match=r"ttl|time to live"):
        ours.put(("a",), "k", {}, ttl=ttl)
    assert ours.get(("a",), "k") is None


# -- queries


@pytest.fixture(params=ALL)
def any_store(request, tmp_path):
    store = opener(request.param, request, tmp_path / "store")()
    store.put(("a",), "k", {"text": "pears"})
    store.put(("a",), "l", {"text": "apples"})
    yield store
    if request.param != "InMemoryStore":
        store.close()


def test_an_empty_query_is_none(any_store):
    assert [item.score for item in any_store.search(("a",), query="")] == [None, None]
    assert [item.score for item in any_store.search(("a",), query=None)] == [None, None]


@pytest.mark.parametrize("query", [" ", "\n\t", "\u200b", "?!", "😀"])
def test_a_query_without_words_finds_everything_somehow(any_store, query):
    found = any_store.search(("a",), query=query)
    assert set(keys(found)) == {"k", "l"}
    assert all(-1.001 <= item.score <= 1.001 for item in found)


@pytest.mark.clock
def test_a_query_of_a_megabyte_is_answered(any_store):
    begun = time.monotonic()
    assert any_store.search(("a",), query="pears in the garden " * 50_000)[0].key == "k"
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "filter",
    [
        {"text": {"$near": 1}},
        {"text": {"$ne": "x", "$in": ["pears"]}},
        {"deep": {"er": {"$regex": "p"}}},
        {"l": [{"$nin": 1}]},
    ],
)
def test_an_unknown_operator_is_refused_with_the_known_ones(ours, filter):
    ours.put(("a",), "k", {"text": "pears", "deep": {"er": "pears"}, "l": [1]})
    for prefix in (("a",), ("nothing",)):
        for query in (None, "pears"):
            with pytest.raises(ValueError, match=r"unknown filter operator \$.*\$gte"):
                ours.search(prefix, filter=filter, query=query)


def test_an_operation_that_is_none_is_refused(ours):
    with pytest.raises(ValueError, match="str"):
        ours.batch([PutOp(("a",), "k", {}), "nonsense"])
    assert ours.search(()) == []


# -- namespaces


@pytest.mark.parametrize("namespace", [(), ("a.b",), ("a", ""), ("",), ("langgraph", "x"), ("a", 1), ("a\x00",)])
def test_a_namespace_that_is_none_is_refused(any_store, namespace):
    with pytest.raises(InvalidNamespaceError):
        any_store.put(namespace, "k", {})
    assert set(keys(any_store.search(()))) == {"k", "l"}


@pytest.mark.parametrize("namespace", [("a.b",), ("a", ""), ("a", 1)])
def test_looking_into_a_namespace_that_is_none_is_refused(any_store, namespace):
    for look in (
        lambda: any_store.get(namespace, "k"),
        lambda: any_store.search(namespace),
        lambda: any_store.delete(namespace, "k"),
        lambda: any_store.list_namespaces(prefix=namespace),
        lambda: any_store.list_namespaces(suffix=namespace),
    ):
        with pytest.raises(InvalidNamespaceError):
            look()


@pytest.mark.parametrize("namespace", [("a.b",), ("a", ""), ("a", 1)])
def test_a_batch_checks_namespaces_too(ours, namespace):  # LangGraph asks stores to; its in-memory one does not
    with pytest.raises(InvalidNamespaceError):
        ours.batch([PutOp(("a",), "good", {}), PutOp(namespace, "k", {})])
    with pytest.raises(InvalidNamespaceError):
        ours.batch([SearchOp(namespace)])
    assert ours.search(()) == []


def test_a_message_can_be_read_by_a_program(ours):
    ours.put(("a",), 'say "hi"\n', {"text": "pears"})
    assert json.loads(json.dumps(ours.stats()))["items"] == 1
