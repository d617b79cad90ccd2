"""No acknowledged lesson is lost: not when the process is killed, and not when the index loses something."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mortal_store
import pytest
from mortal_store import SPACE, missing, puts, text
from stores import search_by_index_alone

from cmat_graph.errors import EmbeddingMismatchError
from cmat_graph.memory.chroma import ChromaStore, searcher
from cmat_graph.memory.embeddings import HashingEmbeddings

HOW = pytest.mark.parametrize("how", ["exact", "index"])


def start(*words, output):
    words = [sys.executable, mortal_store.__file__, *map(str, words)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=output, text=True)


def run_until_killed(story, folder, how, seed, seconds):
    """Kill the process some time after it opened its store; return what it acknowledged."""
    log = folder.with_suffix(f".{seed}")
    with log.open("w") as output:
        process = start(story, folder, how, seed, output=output)
    while not log.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    whole = log.read_text().rpartition("\n")[0]
    return [key for line in whole.splitlines() for key in json.loads(line)]


@pytest.mark.slow
@HOW
def test_a_killed_process_loses_nothing_that_it_acknowledged(how, tmp_path, monkeypatch):
    if how == "index":
        search_by_index_alone(monkeypatch, lag=10)
    kept = []
    for seed in range(3):
        kept += run_until_killed("lessons", tmp_path / "store", how, seed, random.uniform(0.1, 1.5))
        with ChromaStore(tmp_path / "store") as store:
            assert missing(store, kept) == []
            assert len(store.list_namespaces()) == (1 if kept else 0)
    assert len(kept) > 50


@pytest.mark.slow
@pytest.mark.timeout(900)  # a thousand searches by the index alone: minutes beside another busy process
@HOW
def test_a_large_batch_is_there_whole_or_not_at_all(how, tmp_path, monkeypatch):
    if how == "index":
        search_by_index_alone(monkeypatch, lag=10)
    kept, written = [], 0
    for seed in range(3):
        kept += run_until_killed("large", tmp_path / "store", how, seed, random.uniform(0.3, 2.5))
        with ChromaStore(tmp_path / "store") as store:
            items = [item.key for item in store.items()]
            assert len(items) == len(set(items)) >= max(len(kept), written)
            assert len(items) % 3000 == 0
            written = len(items)
            assert missing(store, items[::31]) == []


# -- an index that lost something


def fill(folder, number=150, **more):
    keys = [f"k{i}" for i in range(number)]
    with ChromaStore(folder, **more) as store:
        store.batch(puts(keys))
    return keys


@pytest.fixture(params=["exact", "index"])
def filled(request, tmp_path, monkeypatch):
    """A folder with lessons, and their keys; searched exactly, or through Chroma."""
    if request.param == "index":
        search_by_index_alone(monkeypatch)
    return tmp_path / "store", fill(tmp_path / "store")


def rows_of(folder, remove=None):
    """Return the ids that Chroma has, in a process of its own; delete some first."""
    code = (
        "import sys, json, chromadb\n"
        "[c] = chromadb.PersistentClient(sys.argv[1]).list_collections()\n"
        "gone = json.loads(sys.argv[2])\n"
        "if gone: c.delete(ids=gone)\n"
        "print(json.dumps(c.get(include=[])['ids']))"
    )
    words = [sys.executable, "-c", code, str(folder / "index"), json.dumps(remove or [])]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def assert_whole_after_rebuild(folder, keys):
    told = []
    with ChromaStore.rebuild(folder, progress=lambda done, total: told.append((done, total))) as store:
        assert missing(store, keys) == []
        assert store.stats()["waiting_for_index"] == store.failures == 0
    assert told[-1] == (len(keys), len(keys))
    assert len(rows_of(folder)) == len(keys)


def test_a_deleted_index_is_missed_in_no_search_and_made_anew(filled, caplog):
    folder, keys = filled
    shutil.rmtree(folder / "index")
    with ChromaStore(folder) as store:
        assert missing(store, keys) == []
        assert store.failures == 0
    assert_whole_after_rebuild(folder, keys)


def test_a_deleted_index_comes_back_with_further_writes(tmp_path, monkeypatch, caplog):
    search_by_index_alone(monkeypatch)
    keys = fill(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "index")
    with ChromaStore(tmp_path / "store") as store:
        assert "cmat-graph memory reindex" in caplog.text
        store.batch(puts(["more"]))
        assert store.stats()["waiting_for_index"] == 0
        assert missing(store, [*keys, "more"]) == []
    assert len(rows_of(tmp_path / "store")) == 151


def test_rows_that_chroma_lost_are_missed_in_no_search(filled, caplog):
    folder, keys = filled
    ids = rows_of(folder)
    if ids:
        assert len(rows_of(folder, remove=ids[::3])) == 100
    with ChromaStore(folder) as store:
        assert missing(store, keys) == []
    assert_whole_after_rebuild(folder, keys)


@pytest.mark.parametrize("lost", [40, 3])
def test_lost_rows_are_noticed_though_chroma_still_holds_deleted_items(tmp_path, monkeypatch, lost):
    search_by_index_alone(monkeypatch)
    keys = fill(tmp_path / "store")
    monkeypatch.setattr(searcher, "LEARN_AFTER", 1000)  # what follows Chroma learns later
    with ChromaStore(tmp_path / "store") as store:
        for key in keys[:60]:
            store.delete(SPACE, key)
        living = {store.search(SPACE, query=text(key), limit=1)[0].key for key in keys[60:]}
        assert living == set(keys[60:])
    before = rows_of(tmp_path / "store")
    assert len(before) == 150
    rows_of(tmp_path / "store", remove=before[-lost:])
    with ChromaStore(tmp_path / "store") as store:
        assert missing(store, keys[60:]) == []


DAMAGE = [("chroma.sqlite3", "garbage"), ("chroma.sqlite3", "empty"), ("chroma.sqlite3", "cut"), ("*/*.bin", "garbage")]
DAMAGE += [("*/*.bin", "empty"), ("*/*.bin", "cut"), ("*/*.pickle", "garbage"), ("*/*.pickle", "gone"), ("*", "gone")]


@pytest.mark.slow
@pytest.mark.parametrize(("which", "damage"), DAMAGE)
def test_a_damaged_index_is_told_of_or_survived_and_can_be_made_anew(tmp_path, monkeypatch, which, damage):
    search_by_index_alone(monkeypatch)
    keys = fill(tmp_path / "store", 1200)  # more than Chroma keeps in its log
    files = sorted((tmp_path / "store" / "index").glob(which))
    assert files
    for file in filter(Path.is_file, files):
        old = file.read_bytes()
        new = {"garbage": random.Random(0).randbytes(len(old)), "empty": b"", "cut": old[: len(old) // 2]}.get(damage)
        file.unlink() if new is None else file.write_bytes(new)
    for _ in range(2):  # a cut file may take the process down within Chroma; the next one then knows better
        process = start("check", tmp_path / "store", "index", 0, len(keys), 23, output=subprocess.PIPE)
        told, _ = process.communicate()
        if process.returncode != -signal.SIGSEGV:
            break
    assert process.returncode == 0, f"died with {process.returncode} after {told!r}"
    *opened, rebuilt, waiting = map(json.loads, told.splitlines())
    assert opened == [[], []] or "cmat-graph memory reindex" in opened[-1]
    assert (rebuilt, waiting) == ([], 0)


def test_an_interrupted_rebuild_is_finished_by_another(tmp_path, monkeypatch):
    keys = fill(tmp_path / "store", 600)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ChromaStore.rebuild(tmp_path / "store", embeddings=HashingEmbeddings(64), progress=stop)
    for half in (HashingEmbeddings(64), HashingEmbeddings()):
        with pytest.raises(EmbeddingMismatchError, match="again"):
            ChromaStore(tmp_path / "store", embeddings=half)
    with ChromaStore.rebuild(tmp_path / "store", embeddings=HashingEmbeddings(64)) as store:
        assert missing(store, keys) == []


# -- who owns a folder


def test_a_second_process_is_refused_and_told_of_the_server(tmp_path):
    code = (
        "import sys\n"
        "from cmat_graph.errors import MemoryStoreError\n"
        "from cmat_graph.memory.chroma import ChromaStore\n"
        "try: ChromaStore(sys.argv[1]).put(('a',), 'k', {})\n"
        "except MemoryStoreError as exc: print(exc)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "store")]
    with ChromaStore(tmp_path / "store") as store:
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        assert store.search(()) == []
    assert f"in use by process {os.getpid()}" in told
    assert "chroma run --path" in told
    assert "HttpClient" in told
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == ""
    with ChromaStore(tmp_path / "store") as store:
        assert [item.key for item in store.search(())] == ["k"]


def test_two_stores_of_one_process_on_one_folder_see_the_same(tmp_path, monkeypatch):
    with ChromaStore(tmp_path / "store") as one, ChromaStore(tmp_path / "store") as other:
        one.batch(puts(["a", "b"]))
        other.batch(puts(["c"]))
        assert missing(one, ["a", "b", "c"]) == missing(other, ["a", "b", "c"]) == []
        one.close()
        other.batch(puts(["d"]))
        assert missing(other, ["a", "b", "c", "d"]) == []
