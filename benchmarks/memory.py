"""What memory costs and what it is worth. Each part is a benchmark of its own: `store`, `retrieval`, `lessons`.

A build of 100,000 lessons, two distillations and a few thousand played tasks: half an hour on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import lessons, retrieval, store


def measure(size: int = store.SIZE, tasks: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the figures of all three.

    Args:
        size: Lessons in the store; the other two do a share of their work as well when it is not the default.
        tasks: A task file to ask about as well.

    """
    share = min(1.0, size / store.SIZE)
    yield from store.measure(size)
    yield from retrieval.measure(int(retrieval.SIZE * share), tasks)
    yield from lessons.measure(int(lessons.SIZE * share))
