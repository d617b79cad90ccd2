"""Exact search inside a namespace: its vectors in memory, compared with the query one by one.

Up to some ten thousand vectors that is faster than an approximate index with a filter, and it misses nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from threading import RLock

import numpy as np
import numpy.typing as npt

from cmat_graph.memory.chroma.records import Matrix, Namespace, Records

MAX_VECTORS = 20_000
"""Vectors under a prefix up to which it is searched exactly; as float32 of 384 dimensions some 30 MB."""
MAX_KEPT = 60_000
"""Vectors kept in memory over all prefixes; those used longest ago leave first."""

MAX_BLOCKS = 1_000
MAX_CHANGES = 5_000
"""Writes to the store after which a prefix is read anew rather than brought up to date."""

Vector = npt.NDArray[np.float32]
Ranking = Iterator[tuple[str, float]]
"""Items with their cosine, best first; each once."""


class Block:
    """The vectors under one prefix as of a revision."""

    def __init__(self, owners: list[str], rows: Matrix, revision: int) -> None:
        self._view = (owners, normalised(rows))  # replaced as one: a search in another thread goes on with its own
        self.revision = revision

    def __len__(self) -> int:
        return len(self._view[0])

    def update(self, owners: list[str], rows: Matrix, changed: list[str], revision: int) -> None:
        """Take over what changed since."""
        if not changed:
            self.revision = revision
            return
        known, held = self._view
        held = held[: len(known)]
        if stale := set(changed).intersection(known):
            keep = [i for i, owner in enumerate(known) if owner not in stale]
            known, held = [known[i] for i in keep], held[keep]
        else:
            held = self._view[1]
        size = len(known) + len(owners)
        if size > len(held):  # with room to grow, so that not every put copies all
            room = np.empty((2 * size + 64, rows.shape[1]), dtype=np.float32)
            room[: len(known)] = held[: len(known)]
            held = room
        held[len(known) : size] = normalised(rows)
        self._view = ([*known, *owners], held)
        self.revision = revision

    def rank(self, query: Vector, wanted: int) -> Ranking:
        """Yield items by their best vector's cosine with the query; quick for the first `wanted`."""
        owners, rows = self._view
        return best_first(owners, rows[: len(owners)] @ query, wanted)


class Blocks:
    """The blocks of the prefixes searched last, brought up to date from the records at each search."""

    def __init__(self, records: Records, dimensions: int) -> None:
        self._records, self._dimensions = records, dimensions
        self._blocks: OrderedDict[Namespace, Block] = OrderedDict()
        self._large: dict[Namespace, int] = {}
        self._held = 0  # vectors in all blocks
        self._lock = RLock()

    def under(self, prefix: Namespace, revision: int) -> Block | None:
        """Return the vectors under a prefix as of this revision; None when they are too many."""
        with self._lock:
            if revision - self._large.get(prefix, -MAX_VECTORS) < MAX_VECTORS:
                return None
            block = self._blocks.pop(prefix, None)
            self._held -= len(block) if block is not None else 0
            if block is None and self._records.count(prefix, at_most=MAX_VECTORS + 1) <= MAX_VECTORS:
                block = self._load(prefix, revision)
            elif block is not None and block.revision < revision:
                block = self._refresh(block, prefix, revision)
            if block is None or len(block) > MAX_VECTORS:
                if len(self._large) > MAX_BLOCKS:
                    self._large.clear()
                self._large[prefix] = revision
                return None
            self._blocks[prefix] = block  # as the one used last
            self._held += len(block)
            while len(self._blocks) > 1 and (self._held > MAX_KEPT or len(self._blocks) > MAX_BLOCKS):
                self._held -= len(self._blocks.popitem(last=False)[1])
            return block

    def clear(self) -> None:
        """Forget everything; it is read again."""
        with self._lock:
            self._blocks.clear()
            self._large.clear()
            self._held = 0

    def _load(self, prefix: Namespace, revision: int) -> Block:
        owners, rows = next(self._records.vectors(prefix, self._dimensions))
        return Block(owners, rows, revision)

    def _refresh(self, block: Block, prefix: Namespace, revision: int) -> Block:
        if revision - block.revision > MAX_CHANGES:
            return self._load(prefix, revision)
        owners, rows, changed = self._records.changes(prefix, self._dimensions, after=block.revision)
        block.update(owners, rows, changed, revision)
        return block


def scan(records: Records, prefix: Namespace, dimensions: int, query: Vector, *, page: int) -> Ranking:
    """Rank everything under a prefix however large, a page at a time; slow, and it misses nothing."""
    best: dict[str, float] = {}
    for owners, rows in records.vectors(prefix, dimensions, page=page):
        for owner, score in zip(owners, (normalised(rows) @ query).tolist(), strict=True):
            best[owner] = max(score, best.get(owner, -2.0))
    return iter(in_order(best.items()))


def in_order(ranked: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Sort by score, and equal ones by id: two ways to the same cosine differ in its last digits."""
    return sorted(((item, round(score, 6)) for item, score in ranked), key=lambda pair: (-pair[1], pair[0]))


def best_first(owners: list[str], scores: Vector, wanted: int) -> Ranking:
    """Yield owners by their best score, equal ones in their order; beyond the first ones they are sorted on demand."""
    seen: set[str] = set()
    some = 4 * wanted
    if some < len(owners):
        least = -np.partition(-scores, some)[some]
        top = np.flatnonzero(scores >= least)  # with all that tie, so that pages fit together
        yield from _unseen(owners, scores, top[np.argsort(-scores[top], kind="stable")], seen)
    yield from _unseen(owners, scores, np.argsort(-scores, kind="stable"), seen)


def _unseen(owners: list[str], scores: Vector, order: npt.NDArray[np.intp], seen: set[str]) -> Ranking:
    for i in order:
        if owners[i] not in seen:
            seen.add(owners[i])
            yield owners[i], float(scores[i])


def normalised(rows: Matrix) -> Matrix:
    """Scale each row to length one; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths == 0.0, 1.0, lengths), dtype=np.float32)
