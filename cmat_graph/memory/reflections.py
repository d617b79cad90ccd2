"""Long-term memory: lessons in any LangGraph store, found by the task they came from.

A lesson is written once, recalled for near-equal tasks, credited with what came of it, and in time forgotten. It lies
under `("reflections", environment, node, split)`; those of before there were splits, one level higher, are still read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.store.base import BaseStore, SearchItem

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.audit import lessons, prune
from cmat_graph.memory.crediting import change, credit, credit_recall, items_at, lock, reading
from cmat_graph.memory.ranking import (
    ROOT,
    Lesson,
    Policy,
    is_harmful,
    is_training,
    label,
    namespace,
    rank,
    utc_now,
)
from cmat_graph.memory.shape import flaw_of, is_known, likeness_to, plain, same_lesson, suspicion_of
from cmat_graph.types import Reflection

__all__ = [
    "ROOT",
    "Lesson",
    "Policy",
    "credit",
    "credit_recall",
    "is_training",
    "lessons",
    "namespace",
    "recall",
    "remember",
]

MAX_CHARS = 4_000
"""Longest text that is taken for a lesson or shown as one, and how much of a task is kept with one."""
PRUNE_EVERY = 50
"""Writes of this process to one namespace between two prunings of it; fewer where the cap is small."""


def remember(
    store: BaseStore,
    reflection: Reflection,
    *,
    known: Iterable[str] = (),
    policy: Policy | None = None,
    now: datetime | None = None,
) -> str:
    """Keep a lesson if it is one and if it is new.

    A text that is no lesson (`flaw_of`) is not kept, nor one that was recalled into this very episode. One that says
    nearly the same as a lesson of a like task is merged into it. Control and format characters are dropped. At the
    first write of a process to a namespace and at about every 50th after it, the namespace is pruned.

    Args:
        store: Where to keep it.
        reflection: The lesson with its provenance.
        known: Texts that this episode was shown.
        policy: When tasks are like each other, and how many lessons may stay.
        now: The moment of learning; the present one by default.

    Returns:
        Its key, or that of the lesson it was merged into; empty when it was not kept.

    Raises:
        ConfigurationError: The text has more than 4,000 characters.

    Example:
        >>> from langgraph.store.memory import InMemoryStore
        >>> store = InMemoryStore()
        >>> lesson = Reflection(text="Compare the headers with the question first.", task="How many towns?")
        >>> bool(remember(store, lesson)), remember(store, lesson, known=[lesson.text])
        (True, '')
        >>> [lesson.text for lesson in recall(store, env="", node="assistant", task="How many towns?")]
        ['Compare the headers with the question first.']

    """
    policy, now = policy or Policy(), now or utc_now()
    if len(reflection.text) > MAX_CHARS:
        raise ConfigurationError(
            f"a lesson may have {MAX_CHARS:,} characters, this one has {len(reflection.text):,}; say it shorter"
        )
    text, task = " ".join(plain(reflection.text).split()), _cut(plain(reflection.task))
    # In one line, the name of another role at the start of a line would not be told from a word of the lesson.
    if suspicion_of(reflection.text) or flaw_of(text, task) or is_known(text, known):
        return ""
    space = namespace(reflection.env, reflection.node, reflection.split)
    with lock(store):
        like = _like(store, space, task, policy)
        if same := next((lesson for lesson in like if same_lesson(lesson.text, text)), None):
            news: dict[str, Any] = {}
            if same.episode != reflection.episode or not same.episode:  # who says it twice has learned it once
                news = {"seen": same.seen + 1, "last_seen": now.isoformat()}
            if same.reward is None and reflection.reward is not None:
                news["reward"] = reflection.reward
            for item in items_at(store, [same.place] if news else []):
                change(store, item, news)
            return same.key
        key = hashlib.sha256(f"{task}\n{text}".encode("utf-8", "replace")).hexdigest()[:32]
        value = _value(Lesson(key=key, namespace=space, text=text, task=task), reflection, now)
        store.put(space, key, value, index=["task"])
        if _is_due(store, space, policy):
            prune(store, policy, env=reflection.env, node=reflection.node, split=reflection.split, now=now)
    return key


def recall(
    store: BaseStore,
    *,
    env: str,
    node: str,
    task: str,
    split: str = "",
    limit: int | None = None,
    frozen: bool = False,
    policy: Policy | None = None,
    now: datetime | None = None,
) -> list[Lesson]:
    """Return the best lessons of near-equal tasks, the best first; those of unlike tasks only distract.

    Lessons that did harm, that look planted or whose fix does, that are too long for one, or that were learned on
    another evaluation split are never among them.
    A store without vectors cannot tell which tasks are alike: there, those with most words in common come first.

    Args:
        store: Where they lie.
        env: The environment's name.
        node: For whom they are.
        task: The task at hand.
        split: Its split; what was learned on it may be shown too.
        limit: How many at most; by default the policy's.
        frozen: For evaluation: only what was learned in training, and by default only what has helped.
        policy: What counts, and how much.
        now: The present moment, for what is forgotten.

    """
    policy, now = policy or Policy(), now or utc_now()
    limit = policy.limit if limit is None else limit
    task = _cut(plain(task))
    if limit < 1 or not task.strip():
        return []
    proven_only = frozen if policy.proven_only is None else policy.proven_only

    def fits(lesson: Lesson) -> bool:
        own = not frozen and label(lesson.split) == label(split) and lesson.namespace[3:] in ((), (label(split),))
        return (
            bool(lesson.text)
            and (lesson.is_training or own)
            and (lesson.proven or not proven_only)
            and not is_harmful(lesson, policy)
            and len(lesson.wording) <= MAX_CHARS
            and not suspicion_of(lesson.text)
            and not suspicion_of(lesson.fix)  # by itself: it has a start of its own, where a role may be named
        )

    with reading(store):
        near = _nearest(store, (ROOT, label(env), label(node)), task, fits, policy, wanted=4 * limit)
    ranked = [(rank(lesson, similarity, policy, now), lesson.key, lesson) for similarity, lesson in near]
    chosen: list[Lesson] = []
    for _, _, lesson in sorted(ranked, key=lambda entry: entry[:2], reverse=True):
        if len(chosen) == limit:
            break
        if not is_known(lesson.text, (each.text for each in chosen)):
            chosen.append(lesson)
    return chosen


def _nearest(
    store: BaseStore,
    space: tuple[str, ...],
    task: str,
    fits: Callable[[Lesson], bool],
    policy: Policy,
    *,
    wanted: int,
) -> list[tuple[float, Lesson]]:
    """Return lessons that fit with the similarity of their tasks; asks for more where too many do not fit."""
    asked, most = max(12, wanted), max(1_000, policy.cap)
    while True:
        found = store.search(space, query=task, limit=asked)
        scored = [item.score for item in found if item.score is not None]
        near = [(similarity, Lesson.of(item)) for item, similarity in _similar(found, task, policy)]
        fitting = [(similarity, lesson) for similarity, lesson in near if fits(lesson)]
        ended = len(found) < asked or (scored and scored[-1] < policy.min_similarity) or asked > most
        if ended or (scored and len(fitting) >= wanted):
            return fitting
        # Vectors come nearest first, so a few more may do; without them the order says nothing, and all are looked at.
        asked = asked * 8 if scored else most + 1


def _similar(found: Sequence[SearchItem], task: str, policy: Policy) -> Iterable[tuple[SearchItem, float]]:
    has_vectors = any(item.score is not None for item in found)
    like = likeness_to(task)
    for item in found:
        if item.score is not None:
            if item.score >= policy.min_similarity:
                yield item, item.score
            continue
        given = item.value.get("task") if isinstance(item.value, dict) else None
        similarity = like(given) if isinstance(given, str) else 0.0
        if not has_vectors or similarity >= policy.min_similarity:
            yield item, similarity


def _like(store: BaseStore, space: tuple[str, ...], task: str, policy: Policy) -> list[Lesson]:
    """Return the lessons of this very namespace whose tasks are like this one.

    Those too long to be shown are left out: what is merged into one would never be seen again.
    """

    def fits(lesson: Lesson) -> bool:
        return lesson.namespace == space and len(lesson.wording) <= MAX_CHARS

    near = _nearest(store, space, task, fits, policy, wanted=12)
    return [lesson for similarity, lesson in near if lesson.score is not None or similarity >= policy.min_similarity]


def _value(lesson: Lesson, reflection: Reflection, now: datetime) -> dict[str, Any]:
    value = asdict(lesson)
    for name in ("key", "namespace", "score"):
        del value[name]
    for name in ("env", "node", "split", "attempt", "episode", "model", "reward"):
        value[name] = getattr(reflection, name)
    value["env"] = " ".join(plain(reflection.env).split())  # to be read; the namespace keeps the name as it is
    return {**value, "created": now.isoformat(), "last_seen": now.isoformat()}


def _cut(task: str) -> str:
    """Keep the start and the end of an endless task: what tells it from others may stand in either."""
    half = MAX_CHARS // 2
    return task if len(task) <= MAX_CHARS else f"{task[:half]} ... {task[-half:]}"


_WRITES: WeakKeyDictionary[BaseStore, Counter[tuple[str, ...]]] = WeakKeyDictionary()


def _is_due(store: BaseStore, space: tuple[str, ...], policy: Policy) -> bool:
    every = max(1, min(PRUNE_EVERY, policy.cap // 10))
    writes = _WRITES.setdefault(store, Counter())
    writes[space] += 1
    return writes[space] % every == 1 % every
