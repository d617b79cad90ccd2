"""Lessons as records, and what they are worth: like Ebbinghaus's curve of forgetting, and by what came of showing them.

    retention   exp(-days / strength);  strength = strength_days * (seen + gains)    forgets, slower what helped
    usefulness  gain * trials / (trials + prior_trials)                              mean of F8, shrunk towards 0
    rank        similarity + recency_weight * retention + usefulness_weight * usefulness
    worth       the same without the similarity                                      who goes first at the cap

`days` are counted from when the lesson was last learned, or last shown where it has helped; `gains` is the sum of its
gains, where that is above 0. Lessons that know what then worked (`fix`) come before all others. F8 is CMAT's idea of a
reward for a reflection; the rest of this file is this project's own design.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self

from langgraph.store.base import Item, SearchItem

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.shape import plain

ROOT = "reflections"
TRAINING = ("", "any", "train")
"""Splits whose lessons may be shown anywhere; what is learned on any other split stays there."""


def is_training(split: str) -> bool:
    """Tell whether lessons may be learned from tasks of this split by default, and shown to all others."""
    return split in TRAINING


def namespace(env: str, node: str, split: str = "") -> tuple[str, str, str, str]:
    """Return where the lessons of one node in one environment's split live."""
    return (ROOT, label(env), label(node), label(split))


def label(name: str) -> str:
    """Write a name so that every store takes it as a part of a namespace."""
    return name.replace("%", "%25").replace(".", "%2E").replace("\0", "%00") or "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is recalled, what it is worth and what is forgotten.

    Example:
        >>> Policy(limit=1, cap=200).cap
        200

    """

    limit: int = 3
    """Lessons shown with a task."""
    min_similarity: float = 0.9
    """Cosine between the embeddings of two tasks from which a lesson of one is shown for the other: those of unlike
    tasks only distract."""
    proven_only: bool | None = None
    """Show only lessons that have helped; None: when memory is frozen. Untested ones may cost a tuned model more than
    they bring."""
    recency_weight: float = 0.1
    usefulness_weight: float = 0.3
    strength_days: float = 30.0
    """After this long, a lesson that never helped is retained to a third."""
    min_retention: float = 0.05
    """What is retained less and never helped is forgotten; with 30 days of strength, after 90 days."""
    prior_trials: float = 2.0
    """How many trials without gain each lesson is thought to have had: one lucky trial proves little."""
    harmful_after: int = 3
    """Trials after which a lesson whose mean gain is below 0 is never shown again."""
    min_baseline: int = 5
    """Episodes without any lesson that must be known before an episode with lessons says what they brought."""
    cap: int = 1_000
    """Lessons kept in one namespace."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("min_similarity", "min_retention"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f"Policy({name}={getattr(self, name)}): give a share from 0 to 1")
        for name in ("limit", "recency_weight", "usefulness_weight", "prior_trials", "min_baseline"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"Policy({name}={getattr(self, name)}): give 0 or more")
        for name in ("strength_days", "harmful_after", "cap"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"Policy({name}={getattr(self, name)}): give more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A lesson as it lies in the store."""

    key: str
    namespace: tuple[str, ...]
    text: str
    task: str
    """The prompt of the task that taught it."""
    env: str = ""
    node: str = ""
    split: str = ""
    attempt: int = 0
    episode: str = ""
    """Id of the episode that taught it first; also the recorded one's."""
    model: str = ""
    """Who wrote it: a model's label, or the source of the verdict whose words it is."""
    created: str = ""
    """When, in ISO form; so are the other times."""
    reward: float | None = None
    """Reward of the attempt that failed; None when it was not known yet."""
    gain: float = 0.0
    """Mean of F8 over its trials."""
    trials: int = 0
    """How often it was learned what came of showing it."""
    shown: int = 0
    """Episodes that began with it."""
    last_shown: str = ""
    seen: int = 1
    """How often it was learned."""
    last_seen: str = ""
    fix: str = ""
    """What then worked; empty when nothing is known to have worked."""
    score: float | None = None
    """Similarity of its task to the one asked about; None where the store has no vectors."""

    @classmethod
    def of(cls, item: Item) -> Self:
        """Read a store's item; what is missing or of another type is left at its default.

        Of what is shown, control and format characters are left out: an import or another program may have put them.
        """
        value = item.value if isinstance(item.value, Mapping) else {}
        space = tuple(item.namespace)
        told: dict[str, Any] = {name: value[name] for name, kind in _TOLD if _fits(value.get(name), kind)}
        parts = [each if each != "any" else "" for each in (*space[1:4], "", "", "")]
        told = {"env": parts[0], "node": parts[1], "split": parts[2], "text": "", "task": "", **told}
        told |= {name: plain(told[name]) for name in _SHOWN if name in told}
        if _time(str(told.get("created", ""))) is None:
            told["created"] = item.created_at.isoformat()
        score = item.score if isinstance(item, SearchItem) else None
        return cls(key=item.key, namespace=space, score=score, **told)

    @property
    def place(self) -> list[str]:
        """Its key and its namespace in one list, as the graph's state keeps them."""
        return [self.key, *self.namespace]

    @property
    def wording(self) -> str:
        """What is shown of it."""
        return f"{self.text} What then worked: {self.fix}" if self.fix else self.text

    @property
    def proven(self) -> bool:
        """True when showing it has helped."""
        return self.trials > 0 and self.gain > 0

    @property
    def fixed(self) -> bool:
        """True when it is known what then worked, and showing it did no harm since."""
        return bool(self.fix) and self.gain >= 0

    @property
    def is_training(self) -> bool:
        """True when it may be shown for tasks of every split."""
        there = self.namespace[3] if len(self.namespace) > 3 else ""
        return is_training(self.split) and is_training(there)


_TOLD = [(each.name, str(each.type)) for each in fields(Lesson) if each.name not in ("key", "namespace", "score")]
"""What a store's value tells, with the type it has to have."""
_SHOWN = ("text", "task", "fix", "env")


def is_harmful(lesson: Lesson, policy: Policy) -> bool:
    """Tell whether showing a lesson was worse than not showing it, often enough to believe it."""
    return lesson.trials >= policy.harmful_after and lesson.gain < 0


def is_forgotten(lesson: Lesson, policy: Policy, now: datetime) -> bool:
    """Tell whether a lesson has faded without ever having helped."""
    return not (lesson.proven or lesson.fixed) and retention(lesson, policy, now) < policy.min_retention


def retention(lesson: Lesson, policy: Policy, now: datetime) -> float:
    """Return how much of a lesson is left, 1 when it was just learned or just helped."""
    moments = [lesson.created, lesson.last_seen, *([lesson.last_shown] if lesson.proven or lesson.fixed else [])]
    latest = max((time for each in moments if (time := _time(each)) is not None), default=now)
    days = max(0.0, (now - latest).total_seconds() / 86_400)
    strength = policy.strength_days * (max(1, lesson.seen) + max(0.0, lesson.gain * lesson.trials))
    return math.exp(-days / strength)


def usefulness(lesson: Lesson, policy: Policy) -> float:
    """Return a lesson's mean gain, shrunk towards 0 while there are few trials."""
    return lesson.gain * lesson.trials / (lesson.trials + policy.prior_trials) if lesson.trials else 0.0


def worth(lesson: Lesson, policy: Policy, now: datetime) -> tuple[bool, float]:
    """Return what a lesson is worth by itself; greater is better."""
    kept = policy.recency_weight * retention(lesson, policy, now)
    return lesson.fixed, kept + policy.usefulness_weight * usefulness(lesson, policy)


def rank(lesson: Lesson, similarity: float, policy: Policy, now: datetime) -> tuple[bool, float]:
    """Return what a lesson is worth for a task this similar to its own; greater is better."""
    fixed, by_itself = worth(lesson, policy, now)
    return fixed, similarity + by_itself


def expected_reward(lesson: Lesson, baseline: float) -> float:
    """Return what the first attempt at a task like a lesson's would earn without the lesson.

    Lessons come from tasks that failed, which are harder than the average: measured against the plain mean of
    episodes without lessons, good lessons of hard tasks would look harmful. So the mean counts as one observation and
    each time that a task like it failed without help as another.
    """
    if lesson.reward is None:
        return baseline
    failures = max(1, lesson.seen)
    return (baseline + failures * lesson.reward) / (1 + failures)


def clipped(gain: float) -> float:
    """Return F8: the reward after a lesson minus the one before, within -1 and 1."""
    return max(-1.0, min(1.0, gain))


def utc_now() -> datetime:
    """Return this moment."""
    return datetime.now(UTC)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    if kind == "str":
        return isinstance(value, str)
    if kind == "int":
        return isinstance(value, int)
    return isinstance(value, int | float) and math.isfinite(value)
