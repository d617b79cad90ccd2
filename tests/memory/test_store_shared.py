"""Several stores over the same items, as several processes have them: each sees what the others do."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import chromadb
import pytest
import servers
from langgraph.store.base import PutOp

from cmat_graph.errors import EmbeddingMismatchError
from cmat_graph.memory.chroma import ChromaStore, exact, index, searcher
from cmat_graph.memory.embeddings import HashingEmbeddings


def puts(start, number):
    return [PutOp(("a",), str(i), {"text": f"{i} apples and {i * 7} pears"}) for i in range(start, start + number)]


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Two stores with records of their own connections and one Chroma, which looks nothing up exactly."""
    monkeypatch.setattr(exact, "MAX_VECTORS", 0)
    client, records = chromadb.EphemeralClient(), f"sqlite:///{tmp_path / 'items.db'}"
    one, other = (ChromaStore(client=client, records=records) for _ in range(2))
    yield one, other
    one.close()
    other.close()


def never(*args, **kwargs):
    raise AssertionError("everything was looked at, although the index knows it all")


def test_who_only_reads_uses_what_the_other_indexed(pair, monkeypatch):
    writer, reader = pair
    writer.batch(puts(0, 3000))
    monkeypatch.setattr(searcher, "scan", never)
    assert reader.search(("a",), query="77 apples and 539 pears", limit=1)[0].key == "77"


def test_a_new_index_is_taken_up_by_those_who_had_the_old_one_open(pair, tmp_path, monkeypatch):
    writer, reader = pair
    writer.batch(puts(0, 1200))
    records = f"sqlite:///{tmp_path / 'items.db'}"
    ChromaStore.rebuild(client=chromadb.EphemeralClient(), records=records).close()
    monkeypatch.setattr(searcher, "scan", never)
    for store in pair:
        assert store.search(("a",), query="77 apples and 539 pears", limit=1)[0].key == "77"
        assert store.failures == 0
    writer.batch(puts(2000, 600))
    assert reader.search(("a",), query="2077 apples and 14539 pears", limit=1)[0].key == "2077"


def test_who_has_the_old_embedding_can_neither_write_nor_search_when_another_went_over(pair, tmp_path):
    writer, reader = pair
    writer.batch(puts(0, 10))
    records = f"sqlite:///{tmp_path / 'items.db'}"
    ChromaStore.rebuild(client=chromadb.EphemeralClient(), records=records, embeddings=HashingEmbeddings(64)).close()
    with pytest.raises(EmbeddingMismatchError):
        writer.batch(puts(10, 1))
    with pytest.raises(EmbeddingMismatchError):
        reader.search(("a",), query="apples")
    assert reader.get(("a",), "3") is not None


def test_threads_that_open_one_folder_at_once_all_get_it(tmp_path, caplog):
    with ChromaStore(tmp_path / "s") as store:
        store.batch(puts(0, 700))
    opened, errors = [], []

    def work():
        try:
            opened.append(ChromaStore(tmp_path / "s"))
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(opened), errors, caplog.messages) == (6, [], [])
    for store in opened:
        assert store.get(("a",), "3") is not None
        store.close()


class Down(HashingEmbeddings):
    """A service that does not answer."""

    dimensions = None

    def __init__(self):
        self.name = "down"

    def embed_query(self, text):
        raise ConnectionError("no answer")


def test_a_store_that_could_not_be_opened_does_not_keep_the_folder(tmp_path):
    with pytest.raises(ConnectionError):
        ChromaStore(tmp_path / "s", embeddings=Down())
    with ChromaStore(tmp_path / "s", client=chromadb.EphemeralClient()) as store:  # shared: only when it is free
        assert store.stats()["items"] == 0


@pytest.mark.server
def test_a_server_that_hangs_makes_nobody_wait_for_long(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(index, "SERVER_S", 1.0)
    with servers.chroma(tmp_path / "server") as (host, port):
        store = ChromaStore(tmp_path / "s", client=chromadb.HttpClient(host, port))
        server = int(subprocess.check_output(["pgrep", "-f", f"chroma run.*--port {port}"]).split()[0])
        os.kill(server, signal.SIGSTOP)
        try:
            store.batch(puts(0, 600))
        finally:
            os.kill(server, signal.SIGCONT)
        assert store.search(("a",), query="77 apples and 539 pears", limit=1)[0].key == "77"
        assert (store.failures, len(caplog.messages)) == (1, 1)
        store.close()


@pytest.mark.parametrize("ttl", [float("inf"), float("nan"), 1e12, -1, "5", 0])
def test_a_time_to_live_that_means_nothing_is_refused(tmp_path, ttl):
    with ChromaStore(tmp_path / "s") as store, pytest.raises(ValueError, match="ttl must be minutes"):
        store.put(("a",), "k", {"v": 1}, ttl=ttl)


@pytest.mark.parametrize(
    ("wanted", "told"), [({"limit": -1}, "limit"), ({"offset": 10**20}, "offset"), ({"filter": {1: 2}}, "filter")]
)
def test_a_search_that_means_nothing_is_refused(tmp_path, wanted, told):
    with ChromaStore(tmp_path / "s") as store, pytest.raises(ValueError, match=told):
        store.search(("a",), query="pears", **wanted)


def test_an_item_put_again_after_it_expired_is_a_new_one(tmp_path):
    with ChromaStore(tmp_path / "s") as store:
        store.put(("a",), "k", {"v": 1}, ttl=0.0005)
        created = store.get(("a",), "k", refresh_ttl=False).created_at
        time.sleep(0.1)
        store.put(("a",), "k", {"v": 2})
        assert store.get(("a",), "k").created_at > created


def test_many_searched_namespaces_do_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "MAX_BLOCKS", 5)
    with ChromaStore(tmp_path / "s") as store:
        store.batch(puts(0, 3))
        for user in range(20):
            assert store.search((str(user),), query="pears") == []
        assert len(store._searcher._blocks._blocks) <= 5
        assert len(store.search(("a",), query="pears")) == 3


def test_what_is_put_after_a_search_is_found_by_the_next(tmp_path):
    with ChromaStore(tmp_path / "s") as store:
        store.batch(puts(0, 3))
        assert len(store.search(("a",), query="apples")) == 3
        store.put(("a",), "new", {"text": "a boat with red sails"})
        assert store.search(("a",), query="red sails", limit=1)[0].key == "new"
        store.put(("a",), "new", {"text": "a house of straw"})
        assert store.search(("a",), query="straw house", limit=1)[0].key == "new"
        assert store.search(("a",), query="red sails", limit=1)[0].score < 0.2


def test_the_index_does_not_speak_for_what_changed_since_it_learned(pair):
    store, _ = pair
    store.batch(puts(0, 600))
    store.put(("a",), "5", {"text": "a boat with red sails"})  # waits for the index, which knows the apples
    assert store.stats()["waiting_for_index"] == 1
    found = {item.key: item.score for item in store.search(("a",), query="5 apples and 35 pears", limit=600)}
    assert found["5"] < 0.5
    store.delete(("a",), "7")
    assert "7" not in {item.key for item in store.search(("a",), query="7 apples and 49 pears", limit=20)}


def test_late_items_do_not_stand_for_those_the_index_missed(pair):
    store, _ = pair
    store.batch(puts(0, 600))
    store.batch(puts(600, 30))  # late
    assert len(store.search(("a",), query="77 apples", limit=1000)) == 630


def test_what_is_deleted_leaves_the_index(tmp_path):
    with ChromaStore(tmp_path / "s") as store:
        store.batch(puts(0, 600))
        store.batch([PutOp(("a",), str(i), None) for i in range(100)])
        store.batch(puts(1000, 600))
        assert store._searcher.index.count() == store.stats()["vectors"] - store.stats()["waiting_for_index"] == 1100
