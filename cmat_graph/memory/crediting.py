"""Credit lessons with what came of them, and keep a store's counters whole among threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.store.base import BaseStore, Item
from langgraph.store.memory import InMemoryStore

from cmat_graph.memory.ranking import Lesson, Policy, clipped, expected_reward, label, utc_now
from cmat_graph.memory.shape import plain, suspicion_of

FIX_CHARS = 200
Place = Sequence[str]
"""A lesson's key and then its namespace."""


def credit(store: BaseStore, places: Iterable[Place], gain: float | None, *, fix: str = "") -> None:
    """Tell lessons what came of them.

    Counters of threads of one process add up. Of two processes that write at the same moment the last one counts.

    Args:
        store: Where they lie.
        places: Key and namespace of each.
        gain: F8, the reward after them minus the one before; None where that is not known.
        fix: What then worked; kept with the lesson, at most 200 characters of it.

    """
    fix = "" if suspicion_of(fix) else _shown(fix)
    with lock(store):
        for item in items_at(store, places):
            news: dict[str, Any] = {"fix": fix} if fix else {}
            if gain is not None:
                news |= _tried(Lesson.of(item), gain)
            if news:
                change(store, item, news)


def credit_recall(
    store: BaseStore,
    shown: Sequence[Place],
    reward: float,
    *,
    env: str,
    node: str,
    split: str = "",
    policy: Policy | None = None,
    now: datetime | None = None,
) -> None:
    """Tell lessons how the first attempt of an episode that began with them went; without any, note the baseline.

    The gain is the reward minus what would have been expected without them (`expected_reward`), from the running mean
    of first attempts in this namespace that were shown no lesson. This is this project's own design, not CMAT's.
    """
    policy, now = policy or Policy(), now or utc_now()
    with lock(store):
        if not shown:
            _note(store, reward, env=env, node=node, split=split)
            return
        count, mean = baseline(store, env=env, node=node, split=split)
        for item in items_at(store, shown):
            lesson = Lesson.of(item)
            news: dict[str, Any] = {"shown": lesson.shown + 1, "last_shown": now.isoformat()}
            if count >= policy.min_baseline:
                news |= _tried(lesson, reward - expected_reward(lesson, mean))
            change(store, item, news)


def baseline(store: BaseStore, *, env: str, node: str, split: str = "") -> tuple[int, float]:
    """Return how many first attempts without lessons are known in a namespace, and their mean reward."""
    place = ("cmat", "baselines", label(env), label(node), label(split))
    item = store.get(place, "first")
    known = item.value if item is not None else {}
    count, total, _ = _PENDING.get(store, {}).get(place, (0, 0.0, 0))
    stored = int(known.get("count", 0))
    total += stored * float(known.get("mean", 0.0))
    return stored + count, total / (stored + count) if stored + count else 0.0


def _note(store: BaseStore, reward: float, *, env: str, node: str, split: str) -> None:
    """Add a first attempt to the baseline. It is written when it has grown by a tenth: most episodes need no write."""
    place = ("cmat", "baselines", label(env), label(node), label(split))
    pending = _PENDING.setdefault(store, {})
    count, total, due = pending.get(place, (0, 0.0, 1))
    pending[place] = (count + 1, total + reward, due)
    if count + 1 >= due:
        known, mean = baseline(store, env=env, node=node, split=split)
        store.put(place, "first", {"count": known, "mean": mean}, index=False)
        pending[place] = (0, 0.0, max(1, known // 10))


def items_at(store: BaseStore, places: Iterable[Place]) -> list[Item]:
    """Return the lessons at these places, without those that are gone."""
    items = [store.get(tuple(place[1:]), place[0]) for place in places]
    return [item for item in items if item is not None]


def _tried(lesson: Lesson, gain: float) -> dict[str, Any]:
    trials = lesson.trials + 1
    return {"trials": trials, "gain": lesson.gain + (clipped(gain) - lesson.gain) / trials}


def change(store: BaseStore, item: Item, news: Mapping[str, Any]) -> None:
    """Write a lesson anew with some of its values changed."""
    store.put(item.namespace, item.key, {**item.value, **news}, index=["task"])


def _shown(fix: str) -> str:
    line = " ".join(plain(fix).split())
    return line if len(line) <= FIX_CHARS else f"{line[:FIX_CHARS]}..."


_PENDING: WeakKeyDictionary[BaseStore, dict[tuple[str, ...], tuple[int, float, int]]] = WeakKeyDictionary()
"""What is not written yet of each baseline: how many, the sum of their rewards, and how many make a write due."""
_LOCKS: WeakKeyDictionary[BaseStore, dict[int, threading.RLock]] = WeakKeyDictionary()
"""By process too: a lock that was held when a process forked is never given back in the child."""


def lock(store: BaseStore) -> AbstractContextManager[Any]:
    """Let one thread of this process at a time change lessons of a store: reading and writing make one step."""
    return _LOCKS.setdefault(store, {}).setdefault(os.getpid(), threading.RLock())


def reading(store: BaseStore) -> AbstractContextManager[Any]:
    """Keep writers out while `InMemoryStore` is read: LangGraph's (1.2.22) breaks when it changes during a search."""
    return lock(store) if isinstance(store, InMemoryStore) else nullcontext()
