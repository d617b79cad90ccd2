"""Processes that use a `ChromaStore` and die, or share it: `mortal_store.py STORY FOLDER ...`.

What is acknowledged is written to standard output as a line of JSON, after `put` returned.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import chromadb
from langgraph.store.base import PutOp

from cmat_graph.errors import MemoryStoreError
from cmat_graph.memory.chroma import ChromaStore, exact, searcher

SPACE = ("lessons", "all")


def text(key: str) -> str:
    """Return a text that is like no other."""
    some = random.Random(key)
    return " ".join(f"{some.getrandbits(32):x}" for _ in range(8))


def puts(keys: list[str]) -> list[PutOp]:
    return [PutOp(SPACE, key, {"task": text(key), "key": key}, ["task"]) for key in keys]


def missing(store: ChromaStore, keys: list[str]) -> list[str]:
    """Return the keys that are not found by themselves and as the first result of a search for their text."""
    lost = []
    for key in keys:
        item, best = store.get(SPACE, key), store.search(SPACE, query=text(key), limit=1)
        if item is None or item.value["task"] != text(key) or [found.key for found in best] != [key]:
            lost.append(key)
    return lost


def tell(what: object) -> None:
    print(json.dumps(what), flush=True)


def lessons(folder: Path, seed: str) -> None:
    """Put lessons one by one and in batches until death comes."""
    some, store, number = random.Random(seed), ChromaStore(folder), 0
    tell([])
    while True:
        keys = [f"{seed}-{number + i}" for i in range(some.choice([1, 1, 1, 2, 20, 100]))]
        number += len(keys)
        store.batch(puts(keys))
        tell(keys)


def large(folder: Path, seed: str) -> None:
    """Put one large batch, whose indexing takes a while."""
    searcher.LEARN_AT_ONCE = 100
    store = ChromaStore(folder)
    keys = [f"{seed}-{i}" for i in range(3000)]
    tell([])
    store.batch(puts(keys))
    tell(keys)
    sys.stdin.read()


def share(folder: Path, name: str, number: str, port: str, records: str = "") -> None:
    """Put lessons into a store that others use at the same time; then look for everyone's."""
    place = {"records": records} if records else {"path": folder}
    with ChromaStore(**place, client=chromadb.HttpClient("127.0.0.1", int(port))) as store:
        keys = [f"{name}-{i}" for i in range(int(number))]
        for start in range(0, len(keys), 3):
            store.batch(puts(keys[start : start + 1]))
            store.batch(puts(keys[start + 1 : start + 3]))
        tell(keys)
        tell(missing(store, json.loads(sys.stdin.readline())))


def check(folder: Path, *numbers: str) -> None:
    """Open a store and look for its lessons, put one more, and look again; then make its index anew and look again."""
    keys = [f"k{i}" for i in range(*map(int, numbers))]
    try:
        with ChromaStore(folder) as store:
            tell(missing(store, keys))
            store.batch(puts(["more"]))
            tell(missing(store, [*keys, "more"]))
    except MemoryStoreError as exc:
        tell(str(exc))
    with ChromaStore.rebuild(folder) as store:
        tell(missing(store, keys))
        tell(store.stats()["waiting_for_index"])


if __name__ == "__main__":
    story, folder, how, *rest = sys.argv[1:]
    if how == "index":
        exact.MAX_VECTORS, searcher.LEARN_AFTER = 0, 10
    {"lessons": lessons, "large": large, "share": share, "check": check}[story](Path(folder), *rest)
