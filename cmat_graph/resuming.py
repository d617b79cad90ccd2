"""Play tasks so that a killed process loses none: what a run has finished is read back, not played again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cmat_graph.envs.statuses import worded
from cmat_graph.errors import ConfigurationError
from cmat_graph.rollout import Graph, Outcome, run_episodes
from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Env, Task


def finished(
    traces: TraceStore, tasks: Sequence[Task], *, run: str, env: Env, settings: dict[str, Any] | None = None
) -> dict[str, Outcome]:
    """Return the outcomes that a run has recorded, by task id; an episode that broke off is played again.

    Args:
        traces: Where they were recorded.
        tasks: The tasks that are asked for.
        run: The run's label.
        env: Where they are played.
        settings: What they had to be played with; None takes whatever there is.

    Raises:
        ConfigurationError: The run holds other tasks under the same ids, or was played with other settings.

    """
    wanted = {task.id: task for task in tasks}
    found: dict[str, Outcome] = {}
    for episode in traces.episodes(run=run, env=env.name):
        task = wanted.get(episode.task.id)
        if task is None:
            continue
        known = replace(task, prompt=traces.stored(task.prompt))
        if episode.task != known or (settings is not None and episode.settings != settings):
            raise ConfigurationError(
                f"run {run!r} was recorded with other tasks or settings; give another run label, or another place"
            )
        if episode.reward is not None and episode.stopped != "error":
            found[task.id] = Outcome(
                task=task,
                reward=episode.reward,
                stopped=episode.stopped,
                attempts=episode.attempts,
                answer=episode.answer,
                episode_id=episode.id,
                status=worded(episode.status),
            )
    return found


def play(
    graph: Callable[[], Graph],
    tasks: Sequence[Task],
    *,
    env: Env,
    traces: TraceStore,
    run: str,
    settings: dict[str, Any] | None = None,
    concurrency: int = 16,
    freeze_memory: bool | None = None,
    report: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Play what a run has not finished yet; return the outcomes of all tasks, in their order.

    Args:
        graph: Builds the graph; not called when there is nothing left to play.
        tasks: What to play.
        env: Where to play.
        traces: Where the run is recorded.
        run: Its label.
        settings: Kept with each episode, and compared with those of earlier ones.
        concurrency: Tasks in flight.
        freeze_memory: As for `run_episodes`.
        report: Called with how many tasks are done, and how many there are.

    """
    settings = settings or {}
    outcomes = finished(traces, tasks, run=run, env=env, settings=settings)
    todo = [task for task in tasks if task.id not in outcomes]

    def count(outcome: Outcome) -> None:
        outcomes[outcome.task.id] = outcome
        if report is not None:
            report(len(outcomes), len(tasks))

    if report is not None:
        report(len(outcomes), len(tasks))
    if todo:
        run_episodes(
            graph(),
            todo,
            env=env,
            traces=traces,
            run=run,
            concurrency=concurrency,
            settings=settings,
            freeze_memory=freeze_memory,
            report=count,
        )
    return [outcomes[task.id] for task in tasks]
