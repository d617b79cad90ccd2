"""Which tasks are trained on and which are kept to choose by. Decided by a task's id alone, so every process agrees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from cmat_graph.errors import LeakError
from cmat_graph.types import Task

VALIDATION_SHARE = 0.15
"""Of the training tasks, those that no example comes from: the gate plays them."""
TRAINED_ON = ("train", "")
"""The splits that examples may come from; every other split is for evaluation."""


def is_validation(task_id: str, share: float = VALIDATION_SHARE) -> bool:
    """Tell whether a training task is kept to choose by.

    Example:
        >>> sum(is_validation(f"task-{i}", 0.25) for i in range(1000))
        249

    """
    number = int(hashlib.sha256(f"validation:{task_id}".encode()).hexdigest()[:8], 16)
    return number < share * 2**32


def validation_tasks(tasks: Sequence[Task], share: float = VALIDATION_SHARE) -> list[Task]:
    """Return the training tasks that are kept to choose by."""
    return [task for task in tasks if task.split in TRAINED_ON and is_validation(task.id, share)]


def assert_disjoint(trained: Iterable[str], held_out: Iterable[str]) -> None:
    """Refuse a training set that holds a task of an evaluation, by id or by text.

    Args:
        trained: Hashes or ids of what is trained on.
        held_out: Those of what it is measured on.

    Raises:
        LeakError: They share one.

    """
    if shared := sorted(set(trained) & set(held_out)):
        raise LeakError(
            f"{len(shared)} held-out tasks are in the training data, such as {shared[0]!r}; "
            "leave their episodes out: --split train"
        )
