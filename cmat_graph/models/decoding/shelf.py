"""Which adapters an engine can answer with: their names, what of them is in memory, and what requests still need."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cmat_graph.adapters import WEIGHTS, AdapterCard
from cmat_graph.errors import (
    AdapterMismatchError,
    AdapterNotFoundError,
    CmatError,
    ConfigurationError,
    EngineError,
    UnsupportedAdapterError,
)
from cmat_graph.models.decoding.lora import AdapterWeights
from cmat_graph.models.decoding.rows import LoadedAdapter

Do = Callable[[Callable[[], None], bool], None]
"""Has the worker do something between two steps, and waits for it if wanted."""


class Shelf:
    """The adapters of one engine, within a budget of memory.

    A key, `node/name@hash`, means one version for good; a name means the version that was loaded under it last. Weights
    leave when nobody names them and no request needs them, or, the longest unused first, to make room; a key whose
    weights left is read from disk again when it is asked for.

    Args:
        base: The engine's base, as it was named.
        base_hash: SHA-256 of the base's weights.
        model: The base itself.
        put: Adds weights to the batch under a key; called by the worker.
        take: Takes a key's weights out of the batch; called by the worker.
        do: How to have the worker do it.
        in_worker: Tells whether this is the worker's own thread.
        held: Tells how many bytes all weights take in memory.
        budget: Bytes for all weights together.
        max_rank: Largest rank taken.

    """

    def __init__(
        self,
        *,
        base: str,
        base_hash: str,
        model: Any,
        put: Callable[[str, AdapterWeights], None],
        take: Callable[[str], None],
        do: Do,
        in_worker: Callable[[], bool],
        held: Callable[[], int],
        budget: int,
        max_rank: int,
    ) -> None:
        self._base, self._base_hash, self._model = base, base_hash, model
        self._put, self._take, self._do = put, take, do
        self._in_worker, self._held = in_worker, held
        self._budget, self._max_rank = budget, max_rank
        self._names: dict[str, str] = {}
        self._cards: dict[str, AdapterCard] = {}
        self._sizes: dict[str, int] = {}  # of what is in memory, the longest unused first
        self._before: dict[str, int] = {}
        self._in_use: Counter[str] = Counter()
        self._lock = threading.Lock()  # held for moments, over sizes and uses
        self._loading = threading.RLock()  # held while weights come or go; never by the worker

    def load(self, card: AdapterCard, name: str = "") -> str:
        """Load an adapter, let a name mean it from now on, and return its key; see `Engine.load_adapter`."""
        known = card.base_hash and self._base_hash
        if (card.base_hash != self._base_hash) if known else (card.base != self._base):
            raise AdapterMismatchError(
                f"adapter {card.id} was trained on {card.base} ({card.base_hash[:12]}), "
                f"not on {self._base} ({self._base_hash[:12]}); load that base"
            )
        if "@" in name and name != card.key:
            raise ConfigurationError(f"{name!r} is no name for an adapter; '@' stands in keys alone")
        with self._loading_alone():
            self._check_size(card)
            weights_hash, key = card.weights_hash, card.key
            if key not in self._sizes:
                self._bring(key, card, weights_hash)
            self._cards[key] = card
            before, self._names[name or card.id] = self._names.get(name or card.id, key), key
            self._drop_unnamed(before, wait=False)
        return key

    def unload(self, name: str) -> None:
        """Forget a name.

        Raises:
            AdapterNotFoundError: No such name.

        """
        with self._loading_alone():
            if name not in self._names:
                raise self._unknown(name)
            self._drop_unnamed(self._names.pop(name))

    def list(self) -> list[LoadedAdapter]:
        """Return the names that answer, in the order they came."""
        return [
            LoadedAdapter(name=name, key=key, card=self._cards[key], bytes=self._sizes.get(key, 0))
            for name, key in list(self._names.items())
        ]

    def key_of(self, adapter: str) -> str:
        """Return the key that a name, or a key, means now; "" for the bare base.

        Raises:
            AdapterNotFoundError: There is none.

        """
        key = self._names.get(adapter, adapter)
        if key and key not in self._cards:
            raise self._unknown(adapter)
        return key

    def before(self, key: str) -> int:
        """Return how many tokens stand before every prompt of an adapter."""
        return self._before.get(key, 0)

    def hold(self, key: str, *, wait: bool = True) -> bool:
        """Keep an adapter in memory until `let_go`; without `wait` only if it is there already."""
        with self._lock:
            if key in self._sizes:
                self._sizes[key] = self._sizes.pop(key)
                self._in_use[key] += 1
                return True
        if not wait:
            return False
        with self._loading_alone():
            if key not in self._sizes:
                self._bring(key, self._cards[key], self._cards[key].weights_hash)
            return self.hold(key)

    def let_go(self, key: str) -> None:
        """Note that a request has ended."""
        with self._lock:
            self._in_use[key] -= 1
        self._drop_unnamed(key)

    def _bring(self, key: str, card: AdapterCard, weights_hash: str) -> None:
        if weights_hash and key.rpartition("@")[2] != weights_hash[:12]:
            raise AdapterNotFoundError(f"the weights of adapter {card.id} have changed on disk; load the adapter anew")
        from cmat_graph.models.decoding.adapter_files import read_adapter  # PEFT takes seconds to import

        weights = read_adapter(card, self._model, weights_hash=weights_hash, max_rank=self._max_rank)
        for old in list(self._sizes):
            if self._held() + weights.bytes > self._budget:
                self._drop(old)
        try:
            self._do(lambda: self._put(key, weights), True)
        except (RuntimeError, MemoryError) as exc:
            if isinstance(exc, CmatError):
                raise
            raise EngineError(f"no memory for adapter {card.id}: {exc}; unload others") from exc
        with self._lock:
            self._before[key] = 0 if weights.virtual is None else weights.virtual.shape[0]
            self._sizes[key] = weights.bytes
        for old in list(self._sizes):  # a larger rank makes the others larger, too
            if old != key and self._held() > self._budget:
                self._drop(old)

    def _check_size(self, card: AdapterCard) -> None:
        file = Path(card.folder, WEIGHTS)
        if file.is_file() and (size := file.stat().st_size) > self._budget:
            raise UnsupportedAdapterError(
                f"adapter {card.id} has {size:,} bytes of weights, the budget is {self._budget:,}; raise adapter_bytes"
            )

    @contextlib.contextmanager
    def _loading_alone(self) -> Iterator[None]:
        """Load or unload while no other thread does; the worker itself would wait for itself."""
        if self._in_worker():
            raise EngineError("adapters cannot come or go in a callback of a request; do it in a thread of your own")
        with self._loading:
            yield

    def _drop_unnamed(self, key: str, *, wait: bool = True) -> None:
        if key not in self._names.values():
            self._drop(key, wait=wait)

    def _drop(self, key: str, *, wait: bool = True) -> None:
        """Take an adapter's weights out, unless requests need them."""
        with self._lock:
            if self._in_use[key] or self._sizes.pop(key, None) is None:
                return
        self._do(lambda: self._take(key), wait)

    def _unknown(self, adapter: str) -> AdapterNotFoundError:
        known = ", ".join(sorted(self._names)) or "none"
        return AdapterNotFoundError(f"adapter {adapter!r} is not loaded; known: {known}")
