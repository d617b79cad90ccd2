"""What earlier requests left behind: the keys and values of their tokens, for prompts that begin alike.

The steps of an episode share its history, the agents of a debate their question. Keys and values depend on the adapter,
so only requests of one adapter share them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmat_graph.models.decoding.slots import Memory

LEAST = 32
"""Fewer tokens than this are computed again, rather than kept."""

Tokens = NDArray[np.int32]


@dataclass(slots=True, eq=False)
class Entry:
    """The tokens of one finished request, and what the model made of them."""

    adapter: str
    tokens: Tokens
    memory: Memory
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = sum(t.numel() * t.element_size() for pair in self.memory.values() for t in pair)


class Prefixes:
    """Entries up to a budget of bytes; the one not used for longest leaves first. For the worker thread only."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._alike: dict[tuple[str, bytes], list[Entry]] = {}
        self._by_use: OrderedDict[int, Entry] = OrderedDict()

    def find(self, adapter: str, tokens: Tokens) -> tuple[Entry | None, int]:
        """Return the entry that begins like these tokens for longest, and how many tokens that is."""
        best, most = None, 0
        for entry in self._alike.get(_start(adapter, tokens), ()):
            if (shared := common(entry.tokens, tokens)) > most:
                best, most = entry, shared
        if best is not None:
            self._by_use.move_to_end(id(best))
        return best, most

    def keep(self, adapter: str, tokens: Tokens, memory: Memory) -> None:
        """Keep a finished request; entries that it goes on from are not needed any more."""
        entry = Entry(adapter, tokens, memory)
        if len(tokens) < LEAST or entry.bytes > self.budget:
            return
        alike = self._alike.setdefault(_start(adapter, tokens), [])
        for old in [old for old in alike if common(old.tokens, tokens) == len(old.tokens)]:
            self._drop(old)
        self._alike.setdefault(_start(adapter, tokens), []).append(entry)
        self._by_use[id(entry)] = entry
        self.bytes += entry.bytes
        while self.bytes > self.budget:
            self._drop(next(iter(self._by_use.values())))

    def clear(self) -> None:
        """Forget everything."""
        self._alike.clear()
        self._by_use.clear()
        self.bytes = 0

    def _drop(self, entry: Entry) -> None:
        key = _start(entry.adapter, entry.tokens)
        self._alike[key].remove(entry)
        if not self._alike[key]:
            del self._alike[key]
        del self._by_use[id(entry)]
        self.bytes -= entry.bytes


def common(one: Tokens, other: Tokens) -> int:
    """Return how many tokens two sequences share at their beginning."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _start(adapter: str, tokens: Tokens) -> tuple[str, bytes]:
    return adapter, tokens[:LEAST].tobytes()
