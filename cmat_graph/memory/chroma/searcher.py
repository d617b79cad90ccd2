"""Search by vector: exact inside small namespaces, through Chroma in large ones, up to date in both."""

from __future__ import annotations

import json
import threading
from itertools import chain, islice
from typing import Any

from chromadb.errors import NotFoundError
from langgraph.store.base import SearchOp

from cmat_graph.errors import MemoryStoreError
from cmat_graph.memory.chroma.embedder import mismatch
from cmat_graph.memory.chroma.exact import Blocks, Ranking, Vector, best_first, in_order, normalised, scan
from cmat_graph.memory.chroma.filters import matches
from cmat_graph.memory.chroma.index import Index
from cmat_graph.memory.chroma.records import Matrix, Namespace, Records

LEARN_AFTER = 500
"""Writes that wait before Chroma learns them together; until then a search compares them one by one."""
LEARN_AT_ONCE = 1_000
MOST = 2_048
"""How many of the nearest Chroma is asked for at most; where those do not do, everything is looked at."""
SCAN_PAGE = 5_000

Found = list[tuple[Any, float | None]]
"""Rows with their scores, best first; no score for what has no vectors."""
_Late = tuple[tuple[Namespace, int, int], list[str], Matrix, frozenset[str]]


class Searcher:
    """Finds items by vector, and lets the index learn what was written.

    Args:
        records: The items.
        index: Chroma.
        embedding: What the vectors are of.
        dimensions: How long they are.

    """

    def __init__(self, records: Records, index: Index, *, embedding: str, dimensions: int) -> None:
        self.index = index
        self._records, self._embedding, self._dimensions = records, embedding, dimensions
        self._blocks = Blocks(records, dimensions)
        self._late_ones: _Late | None = None  # the last answer of `_late`
        self._learning = threading.Lock()
        self._marks = records.marks()

    def find(self, query: Vector, op: SearchOp) -> Found:
        """Return what an operation asks for before its offset is cut off."""
        wanted = op.offset + op.limit
        prefix, revision = op.namespace_prefix, self.sync()
        block = self._blocks.under(prefix, revision)
        if block is not None:
            found = self._accept(block.rank(query, wanted), op, wanted)
        else:
            found = self._near(query, op, wanted, revision)
        if len(found) < wanted:
            bare = (row for row in self._records.walk(prefix, bare=True, page=wanted) if accepts(row, op))
            found += [(row, None) for row in islice(bare, wanted - len(found))]
        return found

    def sync(self) -> int:
        """Take notice of what other processes did; return the last revision."""
        marks, own = self._records.marks(), (self._dimensions, self._embedding)
        if other := next((each for each in (marks.rebuilding, marks.embedding) if each[1] and each != own), None):
            raise mismatch(other[1], other[0], self._embedding, self._dimensions)
        if marks.generation != self._marks.generation:  # one of them began the index anew
            self._blocks.clear()
            try:
                self.index.reopen()
            except Exception as exc:  # chromadb's own errors and httpx's: the server is away
                self.index.failed(exc)
                return marks.revision
        self._marks = marks
        return marks.revision

    def written(self, revision: int, number: int) -> None:
        """Note a write; when enough wait the index learns them, and a little more, so that a lag shrinks."""
        self.sync()
        for _ in range(2 + number // LEARN_AT_ONCE):
            if revision - self.indexed < LEARN_AFTER or not self.learn():
                return

    def learn(self) -> bool:
        """Let the index learn the oldest writes it lacks; False when there are none, or it cannot."""
        if self.index.rests or not self._learning.acquire(blocking=False):
            return False
        try:
            done, indexed = self._records.settle(self._dimensions, self.index.learn, limit=LEARN_AT_ONCE)
            self._marks = self._marks._replace(indexed=indexed)
            return done > 0
        except MemoryStoreError:
            raise
        except Exception as exc:  # chromadb's own errors and httpx's: what it lacks it learns later
            self._fails(exc)
            return False
        finally:
            self._learning.release()

    @property
    def indexed(self) -> int:
        """The revision up to which the index knows everything."""
        return self._marks.indexed

    def _fails(self, exc: Exception) -> None:
        if not isinstance(exc, NotFoundError):
            self.index.failed(exc)
        elif self._records.marks().generation == self._marks.generation:
            self.index.failed(exc)  # its server was started on another folder: all of it is learned again
            self._records.forget_index()

    def _near(self, query: Vector, op: SearchOp, wanted: int, revision: int) -> Found:
        """Search a large prefix: through the index, and one by one what the index does not know yet."""
        prefix = op.namespace_prefix
        try:
            if not self.index.rests and revision - self.indexed <= 2 * LEARN_AT_ONCE:
                # A prefix and a filter are looked at afterwards: within Chroma they cost ten times the search.
                for number in (4 * wanted + 20, max(192, 16 * wanted), MOST):
                    ranked, known = self._merge(query, prefix, number, revision)
                    found = self._accept(iter(ranked), op, wanted, under=prefix)
                    if known < number and known >= self.index.count():
                        return found  # these were all
                    # Where the last ones tie with some that are not among the candidates, pages would not fit together.
                    cut = bool(found) and found[-1][1] == ranked[-1][1]
                    if len(found) == wanted and not (cut and number < MOST):
                        return found
        except MemoryStoreError:
            raise
        except Exception as exc:  # chromadb's own errors and httpx's: the server is away, or the folder is damaged
            self._fails(exc)
        return self._accept(scan(self._records, prefix, self._dimensions, query, page=SCAN_PAGE), op, wanted)

    def _merge(
        self, query: Vector, prefix: Namespace, number: int, revision: int
    ) -> tuple[list[tuple[str, float]], int]:
        """Rank the index's nearest together with what was written since it learned, equal ones by their ids.

        Also return how many vectors the index knew to tell of.
        """
        _, owners, rows, changed = self._late(prefix, revision)
        late = islice(best_first(owners, rows @ query, number), number)
        nearest, known = self.index.nearest(query, number)
        return in_order(chain(late, (pair for pair in nearest if pair[0] not in changed))), known

    def _late(self, prefix: Namespace, revision: int) -> _Late:
        """Return the vectors that the index lacks, and every item that changed since."""
        indexed = self.indexed
        state, late = (prefix, revision, indexed), self._late_ones
        if late is None or late[0] != state:
            owners, rows, changed = self._records.changes(prefix, self._dimensions, after=indexed)
            late = (state, owners, normalised(rows), frozenset(changed))
            self._late_ones = late
        return late

    def _accept(self, ranking: Ranking, op: SearchOp, wanted: int, *, under: Namespace = ()) -> Found:
        """Look ranked items up, as many at a time as it takes; keep those under a prefix that meet the filter."""
        found: Found = []
        size = wanted
        while len(found) < wanted and (some := list(islice(ranking, max(1, size)))):
            rows = self._records.fetch([item for item, _ in some], under)
            found += [(row, score) for item, score in some if (row := rows.get(item)) is not None and accepts(row, op)]
            size = min(4 * size, SCAN_PAGE)
        return found[:wanted]


def accepts(row: Any, op: SearchOp) -> bool:
    """Tell whether an item's value meets the operation's filter."""
    return not op.filter or matches(json.loads(row.value), op.filter)
