"""Chroma as an index over the records: vectors by item id, nothing else, so that it can be rebuilt at any time."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

import chromadb
import numpy as np
import numpy.typing as npt
from chromadb.config import Settings

from cmat_graph.errors import MemoryStoreError
from cmat_graph.memory.chroma.exact import Ranking
from cmat_graph.memory.chroma.records import Change, Matrix

logger = logging.getLogger(__name__)

HNSW = {"space": "cosine", "ef_construction": 200, "ef_search": 200, "max_neighbors": 32, "sync_threshold": 1000}
"""Chroma's own defaults recall less than half of the nearest among 50,000 vectors."""
OPENING = threading.RLock()
"""Held while a store is opened: two threads that open one folder would take each other for damage."""
SERVER_S = 15.0
"""How long a server is waited for; writers of all processes wait meanwhile."""
PER_CALL = 500
"""Vectors in one call: for its time, a fifth of a second, Chroma lets no other thread of this process run."""
PAUSE_S = 30.0
"""How long an index that failed is left alone."""

_owned: dict[str, tuple[IO[str], int, bool, int]] = {}
"""What this process holds, by folder: the lock file, how many stores use it, whether it is shared, and which change of
all these this was."""
_changes = itertools.count()


class Index:
    """One store's vectors in Chroma. It never raises: what fails is counted, and searched for elsewhere meanwhile.

    Args:
        client: Any Chroma client.
        store: The store's own id: several stores may share a server.
        embedding: Id of the embedding; its vectors have a collection of their own.
        dimensions: How long they are.

    """

    def __init__(self, client: Any, *, store: str, embedding: str, dimensions: int) -> None:
        self._client = client
        self._is_remote = "fastapi" in str(client.get_settings().chroma_api_impl)
        label = re.sub(r"[^a-zA-Z0-9]+", "-", embedding)[:60].strip("-") or "embedding"
        self._name = f"cmat-{store[:12]}-{label}-{dimensions}"
        self.failures = 0
        """Calls of Chroma that failed and were survived."""
        self._until = 0.0
        self._collection = self._open()

    @property
    def rests(self) -> bool:
        """True while a failed index is left alone."""
        return time.monotonic() < self._until

    def learn(self, changes: list[Change]) -> None:
        """Take over items; raises what Chroma raises, so that the records know that it did not."""
        stale = [f"{c.id}:{part}" for c in changes for part in range(len(c.vectors), c.placed)]
        if stale:
            self._ask(self._collection.delete, ids=stale)
        ids = [f"{change.id}:{part}" for change in changes for part in range(len(change.vectors))]
        if ids:
            rows = np.concatenate([change.vectors for change in changes])
            most = min(PER_CALL, self._ask(self._client.get_max_batch_size))
            for start in range(0, len(ids), most):
                end = start + most
                self._ask(self._collection.upsert, ids=ids[start:end], embeddings=rows[start:end])

    def nearest(self, query: npt.NDArray[np.float32], number: int) -> tuple[Ranking, int]:
        """Return the items of the nearest vectors with their cosine, approximate, and how many vectors that were."""
        found = self._ask(self._collection.query, query_embeddings=[query], n_results=number, include=["distances"])
        ids = found["ids"][0]
        best: dict[str, float] = {}
        for name, distance in zip(ids, found["distances"][0], strict=True):
            best.setdefault(name.partition(":")[0], 1.0 - float(distance))
        return iter(best.items()), len(ids)

    def count(self) -> int:
        """Return how many vectors Chroma holds."""
        return int(self._ask(self._collection.count))

    def finds(self, some: Matrix) -> bool:
        """Tell whether Chroma finds vectors again that it was given; an approximate index may miss a few."""
        if not len(some):
            return True
        found = self._ask(self._collection.query, query_embeddings=list(some), n_results=1, include=["distances"])
        missed = sum(not distances or distances[0] > 0.01 for distances in found["distances"])
        return bool(missed <= len(some) // 8)

    def reopen(self) -> None:
        """Use the collection that is there now."""
        self._collection = self._open()

    def drop(self) -> None:
        """Delete everything and begin anew."""
        self._ask(self._client.delete_collection, self._name)
        self._collection = self._open()

    def failed(self, exc: Exception) -> None:
        """Count a failure, say so the first time, and leave Chroma alone for a while."""
        self.failures += 1
        self._until = time.monotonic() + PAUSE_S
        if self.failures == 1:
            logger.warning(
                "the lesson store goes on without its Chroma index, which failed (%s); nothing is lost, "
                "searches of large namespaces take longer until it is back",
                _first_line(exc),
            )

    def again(self) -> None:
        """Try a failed index again now."""
        self._until = 0.0

    def _open(self) -> Any:
        # No embedding function: Chroma's default one downloads a model at first use.
        return self._ask(
            self._client.get_or_create_collection,
            self._name,
            configuration={"hnsw": HNSW},
            embedding_function=None,
        )

    def _ask(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call Chroma. Its HTTP client waits without end for a server that hangs; nobody here does."""
        if not self._is_remote:
            return function(*args, **kwargs)
        answer: Future[Any] = Future()
        threading.Thread(target=_answer, args=(answer, function, args, kwargs), daemon=True).start()
        return answer.result(SERVER_S)


def _answer(answer: Future[Any], function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        answer.set_result(function(*args, **kwargs))
    except BaseException as exc:
        answer.set_exception(exc)


def open_folder(folder: Path) -> Any:
    """Open an embedded Chroma."""
    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


def own(folder: Path, *, shared: bool = False) -> bool:
    """Take a folder for this process: two that write one embedded Chroma lose results without an error.

    Processes that use a server share it. False when this process has it already.
    """
    name = str(folder.resolve())
    if name in _owned:
        lock, users, kind, _ = _owned[name]
        if kind != shared:
            raise MemoryStoreError(
                f"{folder} is open in this process already, {'over a server' if kind else 'with its own Chroma'}; "
                "open it the same way"
            )
        _owned[name] = (lock, users + 1, kind, next(_changes))
        return False
    lock = open(folder / "owner.lock", "a+")  # noqa: SIM115 - held until it is given back
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as exc:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise MemoryStoreError(
            f"{folder} is in use by process {owner}; stop it, or share it over a server: "
            f"chroma run --path {folder / 'server'} --port 8000, then "
            f"ChromaStore({str(folder)!r}, client=chromadb.HttpClient(port=8000)) in every process"
        ) from exc
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    _owned[name] = (lock, 1, shared, next(_changes))
    return True


def sole(folder: Path) -> int | None:
    """Return a number that stays the same as long as nobody but one store can write to a folder; else None."""
    _, users, shared, change = _owned.get(str(folder.resolve()), (None, 0, True, 0))
    return change if users == 1 and not shared else None


def disown(folder: Path) -> None:
    """Give a folder back; it is free when all of this process have."""
    name = str(folder.resolve())
    lock, users, kind, _ = _owned.pop(name)
    if users > 1:
        _owned[name] = (lock, users - 1, kind, next(_changes))
    else:
        lock.close()


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
