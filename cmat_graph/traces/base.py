"""What a trace store must do. `SQLTraceStore` is the one that ships."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from cmat_graph.types import Episode, Reflection, Step, StopReason, Task, Verdict


class TraceStore(Protocol):
    """Keeps what the acting half did; the tuning half reads it back as episodes.

    Writing never waits and never raises: a broken store must not break an answer. What could not be written is
    counted in `dropped`. Reading sees all that was written before it.
    """

    @property
    def dropped(self) -> int:
        """Records that could not be written."""

    def start_episode(self, episode_id: str, *, env: str, task: Task, run: str, settings: dict[str, Any]) -> None:
        """Write that an episode began, unless that is written already."""

    def assign_roles(self, episode_id: str, *, task: str, roles: dict[str, str]) -> None:
        """Add which model plays which role, and the task's text where the episode began without one."""

    def record_step(self, episode_id: str, step: Step) -> None:
        """Write one model call under its key."""

    def judge_step(
        self, key: str, *, verdict: Verdict | None = None, observation: str | None = None, error: bool = False
    ) -> None:
        """Add what became of a step: its verdict, or what the environment answered."""

    def record_reflection(self, episode_id: str, reflection: Reflection) -> None:
        """Write one lesson."""

    def begin_action(self, episode_id: str, place: str) -> bool:
        """Write, and wait until it is written, that an action begins; False when it had begun before."""

    def has_begun(self, episode_id: str, place: str) -> bool:
        """Tell whether an action was begun."""

    def finish_episode(
        self, episode_id: str, *, reward: float | None, stopped: StopReason, attempts: int, answer: str, error: str
    ) -> None:
        """Write how an episode ended."""

    def set_status(self, episode_id: str, status: str) -> None:
        """Write how an environment's rules word the episode's end, such as AgentBench's statuses."""

    def stored(self, text: str) -> str:
        """Return a text as it is read back: without secrets, and without characters that no database takes."""

    def add_episode(self, episode: Episode) -> bool:
        """Write an episode that was recorded elsewhere, whole or not at all; False when it is there already."""

    def count_steps(self, episode_id: str) -> int:
        """Return how many steps an episode has."""

    def flush(self) -> None:
        """Wait until everything is written."""

    def episodes(
        self, *, run: str | None = None, env: str | None = None, split: str | None = None, solved: bool | None = None
    ) -> Iterator[Episode]:
        """Read episodes back, oldest first."""
