"""How the progress of long work is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Stage(Protocol):
    """Shows how far one stage is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done."""


Stages = Callable[[str], AbstractContextManager[Stage]]
"""Opens a stage by its title."""


def silent(done: int, total: int, note: str = "") -> None:
    """Show nothing."""
