"""Which rows are trained on together, and how a batch is laid out so that little is computed twice or for nothing.

A batch is cut into chunks, each of one or two calls of the model. Rows that begin alike, as all prompts of a node do
with its rules, share a chunk: their common beginning is read once, and the rest of each row behind its keys and
values. The gradient is that of whole rows. What is left is filled up to the length of similar rows, and never masked:
what stands behind a row's end cannot be seen from before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmat_graph.tuning.encoding import EncodedRow

FILLER = -1
"""Index of the empty row, with which the last batch of an epoch is filled up: every process gets as many rows."""
ALIKE = 32
"""Rows that share fewer first tokens are read whole."""
MULTIPLE = 8
"""Lengths are filled up to a multiple of it, so that there are few shapes: caches of oneDNN grow with each."""
STRETCH = 32
"""Batches whose rows are sorted by length together."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is kept."""

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]


class Rows(torch.utils.data.Dataset[Row]):
    """Many rows in little memory."""

    def __init__(self, rows: Iterable[EncodedRow]) -> None:
        self._rows = [Row(np.asarray(row.ids, np.int32), np.asarray(row.weights, np.float32)) for row in rows]
        self._empty = Row(np.zeros(0, np.int32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Row:
        return self._empty if at == FILLER else self._rows[at]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row.ids) for row in self._rows]


class ByLength(torch.utils.data.Sampler[int]):
    """Put rows of similar length into one batch, in an order that depends on the seed and the epoch alone.

    So any number of processes, and a training that goes on after it was killed, see the same batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self.seed, self.epoch))
        order = draw.permutation(len(self.lengths)).tolist()
        stretch = STRETCH * self.batch_size
        batches = []
        for start in range(0, len(order), stretch):
            alike = sorted(order[start : start + stretch], key=self.lengths.__getitem__)
            batches += [alike[at : at + self.batch_size] for at in range(0, len(alike), self.batch_size)]
        for number in draw.permutation(len(batches)):
            batch = batches[number] + [FILLER] * (self.batch_size - len(batches[number]))
            draw.shuffle(batch)  # processes get longer and shorter rows, and fillers, alike
            yield from batch


class Planner:
    """Lay out a batch: the collator of the trainer.

    Args:
        pad: Token to fill up with.
        budget: Tokens that are read in one chunk at most, if a single row is not longer.
        most_targets: Targets in one chunk at most, if a single row has no more: each takes a row of logits.
        shares: Whether the model can go on from keys and values with the gradient of whole rows.
        whole: Whether all rows must be in one chunk, as with sharded weights.

    """

    def __init__(self, *, pad: int, budget: int, most_targets: int, shares: bool, whole: bool = False) -> None:
        self.pad, self.budget, self.most_targets, self.shares, self.whole = pad, budget, most_targets, shares, whole

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the chunks, with what their targets weigh and how many tokens the rows have."""
        filled = [row for row in rows if len(row.ids)]
        chunks = [self._chunk(part, prefix) for part, prefix in self._parts(filled)]
        return {
            "chunks": chunks or [self._nothing()],
            "weight": torch.tensor(sum(float(row.weights[1:].sum()) for row in filled), dtype=torch.float64),
            "tokens": torch.tensor(sum(len(row.ids) for row in filled), dtype=torch.float64),
        }

    def _parts(self, rows: list[Row]) -> Iterator[tuple[list[Row], int]]:
        if self.whole:
            yield from [(rows, 0)] if rows else []
            return
        alone: list[Row] = []
        for group, prefix in alike(rows) if self.shares else [([row], 0) for row in rows]:
            if len(group) == 1:
                alone += group
                continue
            prefix -= prefix % MULTIPLE
            yield from ((part, prefix if len(part) > 1 else 0) for part in self._cut(group, prefix))
        yield from ((part, 0) for part in self._cut(alone, 0))

    def _cut(self, rows: list[Row], prefix: int) -> Iterator[list[Row]]:
        """Cut rows into parts of the budget, as equal as may be; the shortest are together."""
        part: list[Row] = []
        targets = 0
        for row in sorted(rows, key=lambda row: len(row.ids)):
            more = int(np.count_nonzero(row.weights))
            read = prefix + (len(part) + 1) * (len(row.ids) - prefix)
            if part and (read > self.budget or targets + more > self.most_targets):
                yield part
                part, targets = [], 0
            part.append(row)
            targets += more
        if part:
            yield part

    def _chunk(self, rows: list[Row], prefix: int) -> dict[str, torch.Tensor]:
        """Lay out rows as tensors: each token's label is the next one, so that the last is only a label."""
        width = max(len(row.ids) for row in rows) - 1 - prefix
        width = -(-width // MULTIPLE) * MULTIPLE
        ids = torch.full((len(rows), width), self.pad, dtype=torch.long)
        labels = torch.full((len(rows), width), self.pad, dtype=torch.long)
        weights = torch.zeros(len(rows), width)
        for at, row in enumerate(rows):
            length = len(row.ids) - 1 - prefix
            ids[at, :length] = torch.from_numpy(row.ids[prefix:-1])
            labels[at, :length] = torch.from_numpy(row.ids[prefix + 1 :])
            weights[at, :length] = torch.from_numpy(row.weights[prefix + 1 :])
        head = torch.from_numpy(rows[0].ids[:prefix]).long()[None]
        return {"prefix": head, "ids": ids, "labels": labels, "weights": weights}

    def _nothing(self) -> dict[str, torch.Tensor]:
        """A chunk without targets, for a process that got no rows of the last batch: it has to take part."""
        ids = torch.full((1, MULTIPLE), self.pad, dtype=torch.long)
        prefix = torch.zeros((1, 0), dtype=torch.long)
        return {"prefix": prefix, "ids": ids, "labels": ids, "weights": torch.zeros(1, MULTIPLE)}


def alike(rows: Sequence[Row]) -> Iterator[tuple[list[Row], int]]:
    """Group rows by how they begin.

    Returns:
        Groups, each with the number of first tokens that its rows share and that hold no target; 0 for a row alone.

    """
    yield from (([row], 0) for row in rows if _first_target(row) <= ALIKE)
    order = sorted((row for row in rows if _first_target(row) > ALIKE), key=lambda row: row.ids.tolist())
    if not order:
        return
    shared = [_common(one, other) for one, other in pairwise(order)]
    group, prefix = [order[0]], _first_target(order[0]) - 1
    for row, common in zip(order[1:], shared, strict=True):
        narrowed = min(prefix, common, _first_target(row) - 1)
        # Taking a row in is worth it while what is saved does not shrink by a shorter beginning.
        if narrowed >= ALIKE and narrowed * len(group) >= prefix * (len(group) - 1):
            group.append(row)
            prefix = narrowed
        else:
            yield group, prefix if len(group) > 1 else 0
            group, prefix = [row], _first_target(row) - 1
    yield group, prefix if len(group) > 1 else 0


def _first_target(row: Row) -> int:
    return int(np.argmax(row.weights > 0))


def _common(one: Row, other: Row) -> int:
    size = min(len(one.ids), len(other.ids))
    apart = np.flatnonzero(one.ids[:size] != other.ids[:size])
    return int(apart[0]) if len(apart) else size
