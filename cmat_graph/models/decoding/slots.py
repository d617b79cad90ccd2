"""Keys and values of all rows of a batch: one slot each, so that rows come and go without copying the others."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

ROUND = 64
"""Widths are multiples of this."""

Memory = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of one row by layer, each [heads, tokens, width]."""


class SlotCache(Cache):  # type: ignore[misc]
    """A transformers cache over preallocated buffers [slots, heads, columns, width].

    Before each forward `aim` says which slots it is for, into which columns its tokens go, and how many columns they
    look at. The last column takes what is written for padding.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.slots = 0
        self.columns = 0
        self._rows: torch.Tensor | slice = slice(0, 0)
        self._index = torch.empty(0, dtype=torch.long)
        self._into = torch.empty(0, 0, dtype=torch.long)
        self._extent = 0

    def reserve(self, slots: int, columns: int) -> None:
        """Have room for this many slots and columns."""
        if slots <= self.slots and columns <= self.columns:
            return
        if slots > self.slots:
            slots = max(slots, min(2 * self.slots, self.slots + 16))
        if columns > self.columns:
            columns = max(-(-columns // ROUND) * ROUND, self.columns * 3 // 2 // ROUND * ROUND)
        slots, columns = max(slots, self.slots), max(columns, self.columns)
        for layer, pair in self._buffers.items():
            self._buffers[layer] = (self._grown(pair[0], slots, columns), self._grown(pair[1], slots, columns))
        self.slots, self.columns = slots, columns

    def _grown(self, old: torch.Tensor, slots: int, columns: int) -> torch.Tensor:
        if old.shape[0] >= slots and old.shape[2] > columns:  # memory ran out after this layer, the last time
            return old
        new = old.new_zeros(slots, old.shape[1], columns + 1, old.shape[3])
        new[: old.shape[0], :, : old.shape[2] - 1] = old[:, :, :-1]
        return new

    def aim(self, rows: torch.Tensor | slice, index: torch.Tensor, into: torch.Tensor, extent: int) -> None:
        """Prepare a forward.

        Args:
            rows: The slots, as a slice where they lie together: then nothing is copied to read them.
            index: The same as numbers, [rows].
            into: The column of each token, [rows, tokens].
            extent: How many columns the tokens look at.

        """
        self._rows, self._index, self._into, self._extent = rows, index, into, extent

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what a layer computed, and return all that its tokens look at. Called by the model."""
        if layer_idx not in self._buffers:
            self._buffers[layer_idx] = (self._empty(key_states), self._empty(value_states))
        keys, values = self._buffers[layer_idx]
        if self._into.numel() == 1:  # one request alone: writing by index would cost as much as the layer
            keys[self._rows, :, self._extent - 1] = key_states[:, :, 0]
            values[self._rows, :, self._extent - 1] = value_states[:, :, 0]
        elif self._into.shape[1] == 1:
            column = self._into[:, 0]
            keys[self._index, :, column] = key_states[:, :, 0]
            values[self._index, :, column] = value_states[:, :, 0]
        else:
            keys.transpose(1, 2)[self._index[:, None], self._into] = key_states.transpose(1, 2)
            values.transpose(1, 2)[self._index[:, None], self._into] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._extent], values[self._rows, :, : self._extent]

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros(self.slots, like.shape[1], self.columns + 1, like.shape[3])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the columns before this forward's tokens; rows differ, so this is the widest."""
        return self._extent - self._into.shape[1]

    def copy_slot(self, source: int, target: int, columns: int) -> None:
        """Copy the first columns of a slot to another."""
        for keys, values in self._buffers.values():
            keys[target, :, :columns] = keys[source, :, :columns]
            values[target, :, :columns] = values[source, :, :columns]

    def swap(self, one: int, other: int, columns: int) -> None:
        """Exchange two slots."""
        for pair in self._buffers.values():
            for buffer in pair:
                held = buffer[one, :, :columns].clone()
                buffer[one, :, :columns] = buffer[other, :, :columns]
                buffer[other, :, :columns] = held

    def save(self, slot: int, columns: int) -> Memory:
        """Return a copy of a slot's first columns."""
        return {
            layer: (keys[slot, :, :columns].clone(), values[slot, :, :columns].clone())
            for layer, (keys, values) in self._buffers.items()
        }

    def load(self, slot: int, memory: Memory, columns: int) -> None:
        """Fill a slot's first columns from a copy."""
        for layer, (keys, values) in memory.items():
            if layer not in self._buffers:
                self._buffers[layer] = (self._empty(keys[None]), self._empty(values[None]))
            self._buffers[layer][0][slot, :, :columns] = keys[:, :columns]
            self._buffers[layer][1][slot, :, :columns] = values[:, :columns]

    def clear(self, slot: int) -> None:
        """Make a slot's numbers finite again: a masked NaN would spoil whoever comes next."""
        for keys, values in self._buffers.values():
            keys[slot].zero_()
            values[slot].zero_()

    def release(self) -> None:
        """Give all memory back."""
        self._buffers, self.slots, self.columns = {}, 0, 0

    @property
    def bytes(self) -> int:
        """What the buffers take."""
        return sum(t.numel() * t.element_size() for pair in self._buffers.values() for t in pair)
