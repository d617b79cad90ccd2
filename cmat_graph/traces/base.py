"""What a trace store must do. `SQLTraceStore` is the one that ships."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from cmat_graph.types import Episode, Reflection, Step, StopReason, Task, Verdict


class TraceStore(Protocol):
    """Keeps what the acting half did; the tuning half reads it back as episodes."""

    def start_episode(self, episode_id: str, *, env: str, task: Task, run: str, settings: dict[str, Any]) -> None:
        """Write that an episode began."""

    def record_step(self, episode_id: str, step: Step) -> int:
        """Write one model call; return its id."""

    def judge_step(
        self, step_id: int, *, verdict: Verdict | None = None, observation: str | None = None, error: bool = False
    ) -> None:
        """Add what became of a step: its verdict, or what the environment answered."""

    def record_reflection(self, episode_id: str, reflection: Reflection) -> None:
        """Write one lesson."""

    def finish_episode(
        self, episode_id: str, *, reward: float | None, stopped: StopReason, attempts: int, answer: str, error: str
    ) -> None:
        """Write how an episode ended."""

    def episodes(
        self, *, run: str | None = None, env: str | None = None, split: str | None = None, solved: bool | None = None
    ) -> Iterator[Episode]:
        """Read episodes back, oldest first."""
