"""Several processes on one Chroma server, and a server that goes away and comes back."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time

import chromadb
import mortal_store
import pytest
import servers
from mortal_store import missing, puts
from stores import database, search_by_index_alone

from cmat_graph.errors import MemoryStoreError
from cmat_graph.memory.chroma import ChromaStore, index
from cmat_graph.memory.chroma.records import Records

pytestmark = pytest.mark.server
PROCESSES, EACH = 4, 150


def opened(folder, address, **more):
    return ChromaStore(folder, client=chromadb.HttpClient(*address), **more)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "how"), [("folder", "exact"), ("folder", "index"), ("postgres", "index")])
def test_what_each_of_four_processes_puts_all_find(where, how, chroma, request, tmp_path, monkeypatch):
    records = database(request.getfixturevalue("postgres")) if where == "postgres" else None
    words = [sys.executable, mortal_store.__file__, "share", str(tmp_path / "store"), how]
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    rest = [str(EACH), str(chroma[1]), *([records] if records else [])]
    running = [subprocess.Popen([*words, f"p{i}", *rest], **piped) for i in range(PROCESSES)]
    told = [process.stdout.readline() for process in running]
    errors = [process.communicate()[1] for process, line in zip(running, told, strict=True) if not line]
    assert not errors
    keys = [key for line in told for key in json.loads(line)]
    assert len(set(keys)) == PROCESSES * EACH
    for process in running:
        process.stdin.write(json.dumps(keys) + "\n")
        process.stdin.flush()
    assert [json.loads(process.stdout.readline()) for process in running] == [[]] * PROCESSES
    for process in running:
        process.communicate()
    if how == "index":
        search_by_index_alone(monkeypatch)
    place = {"records": records} if records else {"path": tmp_path / "store"}
    with ChromaStore(**place, client=chromadb.HttpClient(*chroma)) as store:
        assert missing(store, keys) == []
        assert store.stats()["items"] == PROCESSES * EACH
        assert store.failures == 0


def test_several_may_open_a_new_database_at_once(postgres):
    for _ in range(15):
        url, gate, errors = database(postgres), threading.Barrier(6), []

        def use(url=url, gate=gate, errors=errors):
            gate.wait()
            try:
                Records(url).close()
            except Exception as exc:
                errors.append(exc)

        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors


@pytest.mark.parametrize("how", ["exact", "index"])
def test_a_server_that_dies_and_comes_back_costs_no_lesson(how, tmp_path, monkeypatch, caplog):
    if how == "index":
        search_by_index_alone(monkeypatch, lag=10)
    monkeypatch.setattr(index, "PAUSE_S", 0.5)
    keys = [f"k{i}" for i in range(60)]
    with servers.chroma(tmp_path / "server") as address:
        store = opened(tmp_path / "store", address)
        for put in puts(keys[:25]):
            store.batch([put])
    for put in puts(keys[25:50]):
        store.batch([put])
    assert missing(store, keys[:50]) == []
    away = store.failures
    assert away > 0 if how == "index" else away == 0  # few lessons need no index
    assert caplog.text.count("goes on without its Chroma index") == (how == "index")
    with servers.chroma(tmp_path / "server", port=address[1]):
        time.sleep(0.6)
        for put in puts(keys[50:]):
            store.batch([put])
        assert missing(store, keys) == []
        assert store.failures == away
        if how == "index":
            assert store.stats()["waiting_for_index"] < 10
        store.close()
        with opened(tmp_path / "store", address) as store:
            assert missing(store, keys) == []


def test_a_server_that_comes_back_empty_is_filled_anew(tmp_path, monkeypatch, caplog):
    search_by_index_alone(monkeypatch, lag=10)
    monkeypatch.setattr(index, "PAUSE_S", 0.5)
    keys = [f"k{i}" for i in range(50)]
    with servers.chroma(tmp_path / "server") as address:
        store = opened(tmp_path / "store", address)
        store.batch(puts(keys))
    with servers.chroma(tmp_path / "another", port=address[1]):
        assert missing(store, keys) == []
        assert store.failures > 0
        store.batch(puts(["more"]))
        store.close()
        with opened(tmp_path / "store", address) as store:
            assert missing(store, [*keys, "more"]) == []
            store.batch(puts([f"m{i}" for i in range(20)]))
            assert store.stats()["waiting_for_index"] < 10
            [collection] = chromadb.HttpClient(*address).list_collections()
            assert collection.count() >= 51


def test_rows_that_the_server_lost_while_a_store_is_open_are_found_after_it_is_opened_again(
    chroma, tmp_path, monkeypatch
):
    search_by_index_alone(monkeypatch)
    keys = [f"k{i}" for i in range(90)]
    with opened(tmp_path / "store", chroma) as store:
        store.batch(puts(keys))
        mine = store.stats()["items"]
        client = chromadb.HttpClient(*chroma)
        [collection] = [some for some in client.list_collections() if some.count() == mine]
        collection.delete(ids=collection.get(include=[])["ids"][::3])
    with opened(tmp_path / "store", chroma) as store:
        assert missing(store, keys) == []


def test_a_server_that_is_not_there_at_opening_is_named_with_the_fix(chroma, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = chromadb.HttpClient(*chroma)
    with pytest.raises(ValueError, match="Could not connect"):  # Chroma's own client looks for the server itself
        chromadb.HttpClient("127.0.0.1", port)
    with servers.chroma(tmp_path / "server", port=port):
        client = chromadb.HttpClient("127.0.0.1", port)
    with pytest.raises(MemoryStoreError, match=f"127.0.0.1:{port}") as raised:
        ChromaStore(tmp_path / "store", client=client)
    assert "chroma run" in str(raised.value)
    assert f"--port {port}" in str(raised.value)


def test_a_folder_cannot_be_owned_and_shared_at_once(chroma, tmp_path):
    with ChromaStore(tmp_path / "store"), pytest.raises(MemoryStoreError, match="open in this process already"):
        opened(tmp_path / "store", chroma)
    with opened(tmp_path / "store", chroma) as store:
        store.put(("a",), "k", {"text": "pears"})
        with pytest.raises(MemoryStoreError, match="open in this process already"):
            ChromaStore(tmp_path / "store")
    with ChromaStore(tmp_path / "store") as store:  # the items are the folder's, whoever indexes them
        assert store.search((), query="pears")[0].key == "k"


def test_items_of_a_dead_postgresql_are_an_error_that_names_it(chroma, tmp_path):
    with servers.postgres() as url:
        store = ChromaStore(records=url, client=chromadb.HttpClient(*chroma))
        store.put(("a",), "k", {"text": "pears"})
    for use in (
        lambda: store.get(("a",), "k"),
        lambda: store.put(("a",), "k", {}),
        lambda: store.search((), query="p"),
    ):
        with pytest.raises(MemoryStoreError, match=r"127\.0\.0\.1"):
            use()
    with pytest.raises(MemoryStoreError, match="cannot open the items"):
        ChromaStore(records=url, client=chromadb.HttpClient(*chroma))
