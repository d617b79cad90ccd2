"""What an experiment is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmat_graph.errors import ConfigurationError
from cmat_graph.splits import TRAINED_ON, assert_disjoint
from cmat_graph.tuning.dataset import hash_task
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.types import Env, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the arms of an experiment have in common."""

    folder: Path
    """Everything made lies here. The same experiment in the same folder goes on where it was stopped."""
    env: Env
    test: Sequence[Task]
    """The held-out tasks that every arm plays."""
    train: Sequence[Task] = ()
    """What may be learned from: the teacher plays them, and memory practises on them."""
    base: str = "nano"
    """The model that is tuned: `nano`, a model folder, or a hub id."""
    teacher: str = "expert"
    """Who plays the training tasks: `expert` (the gold), or any model by its name."""
    seeds: int = 1
    """How often whatever a seed changes is done anew."""
    attempts: int = 3
    """Attempts at one task, in arms with the loop."""
    concurrency: int = 16
    """Tasks in flight."""
    training: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=4.0))
    """How adapters are trained; each seed replaces the one in it."""

    def __post_init__(self) -> None:
        if not self.test or min(self.seeds, self.attempts, self.concurrency) < 1:
            raise ConfigurationError(
                "an experiment needs test tasks, and at least one seed, attempt and task in flight"
            )
        if wrong := next((task for task in self.train if task.split not in TRAINED_ON), None):
            raise ConfigurationError(
                f"task {wrong.id!r} is of split {wrong.split!r}; nothing is learned from that split"
            )
        assert_disjoint((hash_task(t.prompt) for t in self.train), (hash_task(t.prompt) for t in self.test))

    def describe(self) -> dict[str, Any]:
        """Return what makes results belong to one experiment: all but how many seeds there are, and how fast."""
        return {
            "base": self.base,
            "teacher": self.teacher,
            "env": self.env.name,
            "test": {"tasks": len(self.test), "sha256": _hash_tasks(self.test)},
            "train": {"tasks": len(self.train), "sha256": _hash_tasks(self.train)},
            "attempts": self.attempts,
            "training": {name: value for name, value in asdict(self.training).items() if name != "seed"},
        }


def _hash_tasks(tasks: Sequence[Task]) -> str:
    return hashlib.sha256("\n".join(f"{task.id} {hash_task(task.prompt)}" for task in tasks).encode()).hexdigest()
