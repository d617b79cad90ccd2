"""The one place where a running graph writes down what it does."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Message, Reflection, Step, StopReason, Task, Verdict


class Recorder:
    """Writes one episode to a trace store, step by step."""

    def __init__(
        self, traces: TraceStore, *, env: str, task: Task, run: str = "", settings: dict[str, Any] | None = None
    ) -> None:
        self.episode_id = uuid.uuid4().hex
        self._traces = traces
        self._index = itertools.count()
        traces.start_episode(self.episode_id, env=env, task=task, run=run, settings=settings or {})

    def step(
        self,
        *,
        node: str,
        attempt: int,
        messages: list[Message],
        completion: str,
        input_tokens: int = 0,
        output_tokens: int = 0,
        seconds: float = 0.0,
        model: str = "",
        adapter: str = "",
    ) -> int:
        """Record one model call; return the step's id."""
        step = Step(
            index=next(self._index),
            attempt=attempt,
            node=node,
            messages=messages,
            completion=completion,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            seconds=seconds,
            model=model,
            adapter=adapter,
        )
        return self._traces.record_step(self.episode_id, step)

    def verdict(self, step_id: int, verdict: Verdict) -> None:
        """Record how a step was judged."""
        self._traces.judge_step(step_id, verdict=verdict)

    def observation(self, step_id: int, text: str, *, error: bool = False) -> None:
        """Record what the environment answered to a step."""
        self._traces.judge_step(step_id, observation=text, error=error)

    def reflection(self, reflection: Reflection) -> None:
        """Record a lesson."""
        self._traces.record_reflection(self.episode_id, reflection)

    def finish(
        self, *, reward: float | None, stopped: StopReason, attempts: int, answer: str = "", error: str = ""
    ) -> None:
        """Record how the episode ended."""
        self._traces.finish_episode(
            self.episode_id, reward=reward, stopped=stopped, attempts=attempts, answer=answer, error=error
        )
