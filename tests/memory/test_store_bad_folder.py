"""Stores that cannot be opened or written, and embeddings that do not fit: a clear error, and nothing half done."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import chromadb
import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp
from stores import keys, values

from cmat_graph.errors import CmatError, EmbeddingMismatchError, MemoryStoreError
from cmat_graph.memory.chroma import ChromaStore
from cmat_graph.memory.embeddings import HashingEmbeddings

REINDEX = "cmat-graph memory reindex"


# -- embeddings


class Fickle(Embeddings):
    """Embeds as told: with so many dimensions, and a last number of its own."""

    def __init__(self, size=8, last=1.0, name="fickle"):
        self.size, self.last, self.name = size, last, name

    def embed_query(self, text):
        return [float(len(text))] * (self.size - 1) + [self.last]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@pytest.mark.parametrize("other", [HashingEmbeddings(64), Fickle(384), Fickle(384, name="MiniLM")])
def test_another_embedding_is_refused_until_the_store_is_rebuilt(tmp_path, other):
    with ChromaStore(tmp_path / "store") as store:
        store.batch([PutOp(("a",), str(i), {"text": f"number {i}"}) for i in range(20)])
        store.put(("a",), "silent", {"text": "number"}, index=False)
        store.put(("a",), "path", {"text": "pears", "n": 1}, index=["text"])
    with pytest.raises(EmbeddingMismatchError, match=REINDEX) as told:
        ChromaStore(tmp_path / "store", embeddings=other)
    assert isinstance(told.value, (CmatError, ValueError))
    assert other.name in str(told.value)
    assert "hashing" in str(told.value)
    with ChromaStore(tmp_path / "store") as store:  # nothing happened to it
        assert store.search((), query="number 7")[0].key == "7"
    with ChromaStore.rebuild(tmp_path / "store", embeddings=other) as store:
        found = store.search((), query="pears", limit=30)
        assert len(found) == 22
        assert [item.key for item in found if item.score is None] == ["silent"]
        store.put(("a",), "new", {"text": "apples"})
    with pytest.raises(EmbeddingMismatchError, match=REINDEX):
        ChromaStore(tmp_path / "store")
    with ChromaStore(tmp_path / "store", embeddings=other) as store:
        assert len(store.search((), query="apples", limit=30)) == 23
    with ChromaStore.rebuild(tmp_path / "store") as store:
        assert store.search((), query="number 7")[0].key == "7"
        assert store.search((), query="pears")[0].score == pytest.approx(1, abs=1e-4)


def test_an_embedding_that_changes_its_length_is_refused_and_nothing_is_stored(tmp_path):
    changing = Fickle(8)
    with ChromaStore(tmp_path / "store", embeddings=changing) as store:
        store.put(("a",), "k", {"v": 1})
        changing.size = 9
        with pytest.raises(EmbeddingMismatchError, match="9"):
            store.batch([PutOp(("a",), "silent", {"v": 3}, False), PutOp(("a",), "k", {"v": 2})])
        with pytest.raises(EmbeddingMismatchError, match=REINDEX):
            store.search(("a",), query="v")
        assert values(store.search(("a",))) == [{"v": 1}]
        changing.size = 8
        assert keys(store.search(("a",), query="v")) == ["k"]


@pytest.mark.parametrize("last", [math.nan, math.inf, -math.inf])
def test_a_vector_that_is_not_finite_is_refused_and_nothing_is_stored(tmp_path, last):
    sick = Fickle(8)
    with ChromaStore(tmp_path / "store", embeddings=sick) as store:
        store.put(("a",), "k", {"v": 1})
        sick.last = last
        with pytest.raises(ValueError, match="not finite"):
            store.put(("a",), "k", {"v": 2})
        with pytest.raises(ValueError, match="not finite"):
            store.search(("a",), query="v")
        assert values(store.search(())) == [{"v": 1}]


def test_vectors_of_zeros_have_a_score_of_zero(tmp_path):
    empty = Fickle(8, last=0.0)
    with ChromaStore(tmp_path / "store", embeddings=empty) as store:
        store.put(("a",), "empty", {"text": ""}, index=["text"])
        store.put(("a",), "full", {"text": "pears"}, index=["text"])
        assert [(i.key, i.score) for i in store.search((), query="apples")] == [
            ("full", pytest.approx(1)),
            ("empty", 0.0),
        ]


class Broken(HashingEmbeddings):
    def embed_documents(self, texts):
        return super().embed_documents(texts[1:])


def test_an_embedding_that_leaves_texts_out_is_refused(tmp_path):
    with ChromaStore(tmp_path / "store", embeddings=Broken()) as store:
        with pytest.raises(ValueError, match="1 vectors for 2 texts"):
            store.batch([PutOp(("a",), str(i), {"v": i}) for i in range(2)])
        assert store.search(()) == []


# -- folders


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(MemoryStoreError, match="check the folder") as told:
            ChromaStore(path)
        assert str(path) in str(told.value)


def filled(folder):
    with ChromaStore(folder) as store:
        store.put(("a",), "k", {"text": "pears"})
    return folder


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"SQLite format 3\x00" + b"garbage" * 1000])
def test_a_corrupt_file_of_items_is_told_of(tmp_path, garbage):
    folder = filled(tmp_path / "store")
    for more in ("items.db-wal", "items.db-shm"):
        (folder / more).unlink(missing_ok=True)
    (folder / "items.db").write_bytes(garbage)
    with pytest.raises(MemoryStoreError, match=r"items\.db") as told:
        ChromaStore(folder)
    assert "backup" in str(told.value)
    (folder / "items.db").unlink()
    with ChromaStore(folder) as store:  # the folder was given back, and begins empty
        assert store.search(()) == store.search((), query="pears") == []


def test_pages_of_items_that_are_damaged_are_told_of_when_they_are_read(tmp_path):
    with ChromaStore(tmp_path / "store") as store:
        store.batch([PutOp(("a",), str(i), {"text": f"number {i} " * 20}) for i in range(500)])
    file = tmp_path / "store" / "items.db"
    whole = bytearray(file.read_bytes())
    middle = range(4096 * 8, len(whole) - 4096 * 2)
    whole[middle.start : middle.stop] = b"\x5a" * len(middle)
    file.write_bytes(whole)

    def look(**words):
        with ChromaStore(tmp_path / "store") as store:
            store.search((), **words)

    for words in ({"limit": 1000}, {"query": "number"}):
        with pytest.raises(MemoryStoreError, match=r"items\.db"):
            look(**words)


def test_another_programs_database_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "store").mkdir()
    with sqlite3.connect(tmp_path / "store" / "items.db") as other:
        other.execute("CREATE TABLE memory_items (name TEXT)")
    with pytest.raises(MemoryStoreError, match=r"items\.db"):
        ChromaStore(tmp_path / "store").put(("a",), "k", {})


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    folder = filled(tmp_path / "store")
    with sqlite3.connect(folder / "items.db") as items:
        items.execute("UPDATE memory_state SET number = 999 WHERE name = 'schema'")
    with pytest.raises(MemoryStoreError, match="newer cmat-graph"):
        ChromaStore(folder)


AS_NOBODY = """
import os, sys
from cmat_graph.errors import MemoryStoreError
from cmat_graph.memory.chroma import ChromaStore
ChromaStore(sys.argv[1]).put(("a",), "k", {})  # everything is imported while it still can be read
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    ChromaStore(sys.argv[2]).put(("a",), "k", {})
except MemoryStoreError as exc:
    print(exc)
"""


def told_without_rights(tmp_path, folder):
    """Open a store and put something as a user that owns nothing; return the error."""
    words = [sys.executable, "-c", AS_NOBODY, str(tmp_path / "own"), str(folder)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def read_only():
    """A filled store in a folder that nobody may write."""
    top = Path(tempfile.mkdtemp())
    folder = filled(top / "store")
    for path in (top, *top.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o444)
    if os.getuid():
        folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(top)


def test_a_folder_that_cannot_be_written_is_named(read_only, tmp_path):
    for folder in (read_only, read_only / "new"):
        told = told_without_rights(tmp_path, folder)
        assert str(folder) in told
        assert "rights" in told or "written" in told


def test_items_that_cannot_be_written_are_named(read_only, tmp_path):
    (read_only / "owner.lock").chmod(0o666)
    told = told_without_rights(tmp_path, read_only)
    assert "items.db" in told
    assert "rights" in told or "written" in told


def test_an_index_that_cannot_be_written_is_named_or_survived(read_only, tmp_path):
    read_only.chmod(0o777)
    for file in read_only.glob("*.*"):
        file.chmod(0o666)
    told = told_without_rights(tmp_path, read_only)
    assert "index" in told
    assert "rights" in told or "written" in told or "reindex" in told


def test_a_forked_child_is_told_to_open_its_own(tmp_path):
    with ChromaStore(tmp_path / "store") as store:
        store.put(("a",), "k", {"v": 1})
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            try:
                store.put(("a",), "child", {})
            except MemoryStoreError as exc:
                os.write(writer, str(exc).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        assert b"forked" in os.read(reader, 1000)
        os.close(reader)
        assert keys(store.search(())) == ["k"]


def test_a_closed_store_says_so(tmp_path):
    store = ChromaStore(tmp_path / "store")
    store.close()
    store.close()
    with pytest.raises(MemoryStoreError, match="closed"):
        store.get(("a",), "k")


@pytest.mark.parametrize("records", ["nonsense", "nodialect://x", "sqlite:////nowhere/at/all/items.db"])
def test_records_that_cannot_be_opened_are_named(records):
    with pytest.raises(MemoryStoreError, match=r"records|items"):
        ChromaStore(client=chromadb.EphemeralClient(), records=records)
