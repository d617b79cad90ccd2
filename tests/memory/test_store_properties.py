"""Random operations on LangGraph's own store and on ours: the same answers, also after reopening."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import chromadb
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from langgraph.store.base import GetOp, PutOp
from stores import Mended, assert_same_ranking, database, search_by_index_alone

from cmat_graph.memory.chroma import ChromaStore

ALL = 10_000
LABELS = st.sampled_from(["a", "b", "a/b", "A", "é%_'", "*"])
SPACES = st.sampled_from([("a",), ("a",), ("a", "b"), ("ab",), ("A", "b"), ("a/b",), ("a", "b", "é%_'"), ("*", "b")])
PREFIXES = st.sampled_from([(), ("a",), ("a", "b"), ("A",), ("é%_'",), ("*",), ("a", "b", "é%_'", "a")])
KEYS = st.sampled_from(["k", "K", "k'\n😀"])
WORDS = st.lists(st.sampled_from(["red", "green", "apples", "cars", "SQL", "rows", "Ärger"]), max_size=4).map(" ".join)
TEXTS = WORDS | st.text(st.characters(codec="utf-8"), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, -2.5]) | WORDS
DEEP = st.recursive(
    LEAVES, lambda some: st.lists(some, max_size=3) | st.dictionaries(WORDS, some, max_size=2), max_leaves=5
)
NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, 1.0])
FIELDS = {"text": TEXTS, "n": NUMBERS, "deep": DEEP, "items": st.lists(TEXTS, max_size=3)}
VALUES = st.fixed_dictionaries({}, optional=FIELDS)
INDEXES = st.sampled_from([None, None, False, ["text"], ["items[*]", "text"], ["items[*]", "text"], ["deep", "none"]])
PUTS = st.tuples(SPACES, KEYS, st.none() | VALUES, INDEXES).map(lambda parts: PutOp(*parts))
EQUALITIES = ["$eq", "$ne"]
FILTERS = st.none() | st.fixed_dictionaries(
    {}, optional={name: some | st.dictionaries(st.sampled_from(EQUALITIES), some) for name, some in FIELDS.items()}
)
LIMITS = st.sampled_from([1, 1, 2, 3, 12, 0])
PATHS = st.lists(LABELS, min_size=1, max_size=3).map(tuple) | st.none()


class Twins(RuleBasedStateMachine):
    """Our store beside the oracle."""

    open_store = staticmethod(ChromaStore)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.theirs = Mended()
        self.said: list[str] = []
        self.ours = self.open_store(self.folder)

    def teardown(self) -> None:
        self.ours.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(puts=st.lists(PUTS, min_size=5, max_size=20))
    def begin(self, puts):
        self.batch(puts, [])

    @rule(put=PUTS)
    def put(self, put):
        self.note([put])
        for store in (self.ours, self.theirs):
            store.batch([put])

    @rule(puts=st.lists(PUTS, max_size=8), places=st.lists(st.tuples(SPACES, KEYS), max_size=3))
    def batch(self, puts, places):
        self.note(puts)
        gets = [GetOp(*place) for place in places]
        ours, theirs = (store.batch([*gets[:1], *puts, *gets[1:]]) for store in (self.ours, self.theirs))
        assert [item and item.value for item in ours] == [item and item.value for item in theirs]

    @rule(space=SPACES, key=KEYS)
    def get(self, space, key):
        ours, theirs = (store.get(space, key) for store in (self.ours, self.theirs))
        assert (ours and ours.value) == (theirs and theirs.value)

    @rule(prefix=PREFIXES, query=st.none() | TEXTS, filter=FILTERS, limit=LIMITS, offset=st.integers(0, 5))
    def search(self, prefix, query, filter, limit, offset):
        theirs = self.theirs.search(prefix, query=query, filter=filter, limit=ALL)
        ours = self.ours.search(prefix, query=query, filter=filter, limit=limit, offset=offset)
        assert_same_ranking(ours, theirs, limit=limit, offset=offset)

    @rule(
        prefix=PREFIXES,
        bound=NUMBERS,
        operator=st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
        query=st.none() | TEXTS,
    )
    def search_by_order(self, prefix, bound, operator, query):
        numbers = [item for item in self.theirs.search(prefix, query=query, limit=ALL) if "n" in item.value]
        compare = {"$gt": float.__gt__, "$gte": float.__ge__, "$lt": float.__lt__, "$lte": float.__le__}[operator]
        theirs = [item for item in numbers if compare(float(item.value["n"]), float(bound))]
        ours = self.ours.search(prefix, query=query, filter={"n": {operator: bound}}, limit=ALL)
        assert_same_ranking(ours, theirs, limit=ALL)

    @rule(
        prefix=PATHS,
        suffix=PATHS,
        depth=st.none() | st.integers(1, 3),
        limit=st.integers(0, 9),
        offset=st.integers(0, 3),
    )
    def list_namespaces(self, prefix, suffix, depth, limit, offset):
        words = {"prefix": prefix, "suffix": suffix, "max_depth": depth, "limit": limit, "offset": offset}
        assert self.ours.list_namespaces(**words) == self.theirs.list_namespaces(**words)

    @rule()
    def reopen(self):
        self.ours.close()
        self.ours = self.open_store(self.folder)

    @invariant()
    def holds_the_same(self):
        ours, theirs = (store.search((), limit=ALL) for store in (self.ours, self.theirs))
        assert_same_ranking(ours, theirs, limit=ALL)
        times = [item.updated_at for item in ours]
        assert all(later >= earlier for later, earlier in pairwise(times))

    @invariant()
    def finds_the_same(self):
        for query in filter(None, self.said):  # also what is said no longer
            for prefix in ((), ("a",)):
                theirs = self.theirs.search(prefix, query=query, limit=ALL)
                for limit in (1, 4):
                    assert_same_ranking(self.ours.search(prefix, query=query, limit=limit), theirs, limit=limit)

    def note(self, puts):
        self.said += [put.value["text"] for put in puts if put.value and "text" in put.value]
        del self.said[:-4]


def run(machine, examples):
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=quiet),
    )


def test_a_folder_answers_as_the_oracle():
    run(Twins, 12)


@pytest.mark.parametrize("lag", [1, 6])
def test_a_folder_searched_by_its_index_alone_answers_as_the_oracle(monkeypatch, lag):
    search_by_index_alone(monkeypatch, lag=lag)
    run(Twins, 8)


@pytest.mark.server
def test_a_server_answers_as_the_oracle(chroma, monkeypatch):
    class Served(Twins):
        def open_store(self, folder):
            return ChromaStore(folder, client=chromadb.HttpClient(*chroma))

    search_by_index_alone(monkeypatch, lag=4)
    run(Served, 12)


@pytest.mark.server
def test_records_in_postgresql_answer_as_the_oracle(chroma, postgres):
    class Postgres(Twins):
        def __init__(self):
            self.records = database(postgres)
            super().__init__()

        def open_store(self, _):
            return ChromaStore(records=self.records, client=chromadb.HttpClient(*chroma))

    run(Postgres, 8)
