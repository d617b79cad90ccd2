"""Look through all lessons: forget those that are not worth their place, and complain about those that look bad."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from langgraph.store.base import BaseStore, PutOp

from cmat_graph.memory.ranking import (
    ROOT,
    Lesson,
    Policy,
    is_forgotten,
    is_harmful,
    label,
    retention,
    utc_now,
    worth,
)
from cmat_graph.memory.shape import LESSON_MAX, flaw_of, likeness, same_lesson, suspicion_of, words_of

PAGE = 500
Kind = Literal["useless", "harmful", "duplicate", "suspicious"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What is wrong with a lesson."""

    kind: Kind
    lesson: Lesson
    why: str


def lessons(
    store: BaseStore, *, env: str | None = None, node: str | None = None, split: str | None = None
) -> Iterator[Lesson]:
    """Go through all lessons, or those of one environment, node or split; None stands for all of them.

    Example:
        >>> from langgraph.store.memory import InMemoryStore
        >>> list(lessons(InMemoryStore()))
        []

    """
    wanted = [None if name is None else label(name) for name in (env, node, split)]
    prefix = [ROOT]
    # Lessons of before there were splits lie one level higher, and count as those of `any`.
    for part in wanted[: 2 if wanted[2] == "any" else 3]:
        if part is None:
            break
        prefix.append(part)
    seen: set[tuple[str, ...]] = set()  # a store in which others write at the same time may show an item twice
    offset = 0
    while found := store.search(tuple(prefix), limit=PAGE, offset=offset):
        offset += len(found)
        for item in found:
            lesson = Lesson.of(item)
            name = tuple(lesson.place)
            if name not in seen and is_in(lesson.namespace, wanted):
                seen.add(name)
                yield lesson
        if len(found) < PAGE:
            return


def prune(
    store: BaseStore,
    policy: Policy | None = None,
    *,
    env: str | None = None,
    node: str | None = None,
    split: str | None = None,
    dry_run: bool = False,
    now: datetime | None = None,
) -> list[tuple[Lesson, str]]:
    """Delete lessons that are forgotten, harmful, exact duplicates, or over the cap of their namespace.

    Over the cap, those worth least go first; those that know what then worked go last.

    Args:
        store: Where they lie.
        policy: What counts as forgotten and harmful, and how many may stay.
        env: Only this environment's.
        node: Only this node's.
        split: Only this split's.
        dry_run: Delete nothing.
        now: The moment at which to judge; the present one by default.

    Returns:
        Each lesson with the reason why it goes.

    """
    policy, now = policy or Policy(), now or utc_now()
    gone: list[tuple[Lesson, str]] = []
    spaces: dict[tuple[str, ...], list[Lesson]] = defaultdict(list)
    for lesson in lessons(store, env=env, node=node, split=split):
        if is_harmful(lesson, policy):
            gone.append((lesson, f"harmful: mean gain {lesson.gain:+.2f} in {lesson.trials} trials"))
        elif is_forgotten(lesson, policy, now):
            kept = retention(lesson, policy, now)
            gone.append((lesson, f"forgotten: {kept:.1%} retained, and it never helped"))
        else:
            spaces[_space(lesson)].append(lesson)
    for space in spaces.values():
        best_first = sorted(space, key=lambda lesson: (worth(lesson, policy, now), lesson.key), reverse=True)
        unlike: dict[tuple[str, ...], str] = {}
        kept_here = 0
        for lesson in best_first:
            wording = (*words_of(lesson.task), "", *words_of(lesson.text))
            if wording in unlike:
                gone.append((lesson, f"duplicate of {unlike[wording]}"))
            elif kept_here >= policy.cap:
                gone.append((lesson, f"over the cap of {policy.cap} lessons in {'/'.join(lesson.namespace)}"))
            else:
                unlike[wording] = lesson.key
                kept_here += 1
    if not dry_run:
        for start in range(0, len(gone), PAGE):
            store.batch([PutOp(lesson.namespace, lesson.key, None) for lesson, _ in gone[start : start + PAGE]])
    return gone


def audit(store: BaseStore, policy: Policy | None = None, *, now: datetime | None = None) -> list[Complaint]:
    """List the lessons that look useless, harmful, duplicate or suspicious; nothing is changed.

    A lesson may be complained about for more than one reason.
    """
    policy, now = policy or Policy(), now or utc_now()
    spaces: dict[tuple[str, ...], list[Lesson]] = defaultdict(list)
    found: list[Complaint] = []
    for lesson in lessons(store):
        spaces[_space(lesson)].append(lesson)
        found += [Complaint(kind=kind, lesson=lesson, why=why) for kind, why in _faults(lesson, policy, now)]
    for space in spaces.values():
        for later, earlier in _alike(space, policy):
            why = f"It says the same as {earlier.key} for a like task."
            found.append(Complaint(kind="duplicate", lesson=later, why=why))
    return found


def _faults(lesson: Lesson, policy: Policy, now: datetime) -> Iterator[tuple[Kind, str]]:
    if why := suspicion_of(lesson.text):
        yield "suspicious", why
    elif flaw := flaw_of(lesson.text, lesson.task):
        yield "useless", flaw
    if lesson.fix and (why := suspicion_of(lesson.fix)):
        yield "suspicious", f"What then worked: {why}"
    if is_harmful(lesson, policy):
        yield "harmful", f"Mean gain {lesson.gain:+.2f} in {lesson.trials} trials."
    elif lesson.trials >= policy.harmful_after and lesson.gain < 0.01:
        yield "useless", f"Nothing came of it in {lesson.trials} trials."
    if is_forgotten(lesson, policy, now):
        yield "useless", f"It never helped, and {retention(lesson, policy, now):.1%} of it is retained."


def _alike(space: list[Lesson], policy: Policy) -> Iterator[tuple[Lesson, Lesson]]:
    """Pair each lesson with an earlier one that says the same for a like task.

    Comparing all with all would take hours for 100,000. Texts that have most of their words in common share one of
    their rarest words (prefix filtering), and so do their tasks; only lessons that share both are compared. As in
    `same_lesson`, no more of a text counts than a lesson may have.
    """
    texts = Counter(word for lesson in space for word in set(words_of(lesson.text[:LESSON_MAX])))
    tasks = Counter(word for lesson in space for word in set(words_of(lesson.task)))
    seen: dict[tuple[str, str], list[Lesson]] = defaultdict(list)
    for lesson in sorted(space, key=lambda lesson: (lesson.created, lesson.key)):
        # `same_lesson`: 2 * common >= 0.9 * (a + b), so over 0.8 of each
        of_text = _rarest(lesson.text[:LESSON_MAX], texts, 0.8)
        of_task = _rarest(lesson.task, tasks, policy.min_similarity)
        marks = [(text, task) for text in of_text for task in of_task]
        if earlier := _first_alike(lesson, [each for mark in marks for each in seen[mark]], policy):
            yield lesson, earlier
        for mark in marks:
            seen[mark].append(lesson)


def _rarest(text: str, often: Counter[str], share: float) -> list[str]:
    """Return so many of a text's rarest words that any text with this share of its words has one of them."""
    words = sorted(set(words_of(text)), key=lambda word: (often[word], word))
    return words[: len(words) - math.ceil(share * len(words)) + 1] or [text]


def _first_alike(lesson: Lesson, others: Iterable[Lesson], policy: Policy) -> Lesson | None:
    for other in others:
        same_task = lesson.task == other.task or likeness(lesson.task, other.task) >= policy.min_similarity
        if same_task and same_lesson(lesson.text, other.text):
            return other
    return None


def _space(lesson: Lesson) -> tuple[str, ...]:
    """Return the namespace that a lesson counts towards; one of before there were splits to `any`."""
    return lesson.namespace if len(lesson.namespace) != 3 else (*lesson.namespace, "any")


def is_in(space: tuple[str, ...], wanted: list[str | None]) -> bool:
    """Tell whether a namespace is of this environment, node and split; None stands for any."""
    parts = (*space[1:4], "any", "any", "any")
    return all(want is None or want == part for want, part in zip(wanted, parts, strict=False))
