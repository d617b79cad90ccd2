"""Play tasks with a compiled graph and record them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Durability

from cmat_graph.envs.statuses import Status, Watched, status_of, wrap
from cmat_graph.errors import CmatError, EpisodeFailure, TaskFileError
from cmat_graph.memory.ranking import is_training
from cmat_graph.state import RunContext
from cmat_graph.traces.base import TraceStore
from cmat_graph.traces.recorder import Recorder
from cmat_graph.types import Env, StopReason, Task

logger = logging.getLogger(__name__)

Graph = CompiledStateGraph[Any, RunContext, Any, Any]
STEPS = 2_000
"""Graph steps of one episode, far above what attempts, rounds and revisions allow: the last line of defence."""
Report = Callable[["Outcome"], None]
"""Called after each task, in the caller's thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one task went."""

    task: Task
    reward: float
    """The environment's score, 0..1; 0 when the episode broke off."""
    stopped: StopReason
    attempts: int
    answer: str = ""
    error: str = ""
    episode_id: str = ""
    """The recorded episode; empty when nothing was recorded."""
    status: Status = "unknown"
    """How it ended, in AgentBench's words; unknown where it was read back from traces that do not tell."""


def run_episode(
    graph: Graph,
    task: Task,
    *,
    env: Env,
    traces: TraceStore | None = None,
    run: str = "",
    settings: dict[str, Any] | None = None,
    freeze_memory: bool | None = None,
) -> Outcome:
    """Play one task.

    A model that fails (a prompt past its window, a refused request) or an environment that dies makes a failed
    episode with its error; what cannot be opened at all raises. A graph with a checkpointer goes on where an earlier
    process of the same run stopped in the middle of the task. Long-term memory learns from training tasks (split
    `train`, or none) and is only read for all others, unless `freeze_memory` says so.
    """
    try:
        session = wrap(env.open(task), Watched)
    except TaskFileError as exc:  # a faulty task is this task's failure, not the run's
        return Outcome(task=task, reward=0.0, stopped="error", attempts=0, error=str(exc), status="task error")
    try:
        config: RunnableConfig = {"recursion_limit": STEPS}
        if graph.checkpointer:
            config["configurable"] = {"thread_id": f"{run}:{task.id}"}
        begun = _unfinished(graph, config)
        recorder = None
        if traces is not None:
            recorder = Recorder(traces, env=env.name, task=task, run=run, settings=settings, episode_id=begun)
            config["callbacks"] = [recorder]
        context = RunContext(
            session=session,
            env=env.name,
            split=task.split,
            rules=env.rules,
            max_rounds=env.max_rounds,
            freeze_memory=not is_training(task.split) if freeze_memory is None else freeze_memory,
        )
        start = None if begun else {"messages": [("user", task.prompt)]}
        try:
            # Kept before the next step begins: what a killed process has recorded is then not done again.
            durability: Durability | None = "sync" if graph.checkpointer else None
            loop = graph.invoke(start, config, context=context, durability=durability)["cmat"]
            outcome = Outcome(
                task=task,
                reward=session.score(),
                stopped=loop["stopped"],
                attempts=loop["attempt"],
                answer=loop["answer"],
                error=loop["error"],
                episode_id=recorder.episode_id if recorder else "",
                status=status_of(
                    loop["stopped"],
                    last=session.last,
                    rounds=session.rounds,
                    max_rounds=env.max_rounds,
                    error=loop["error"],
                ),
            )
        except Exception as exc:
            if isinstance(exc, CmatError) and not isinstance(exc, EpisodeFailure):
                raise  # a mistake in how the graph was built; every task would end alike
            message = f"{type(exc).__name__}: {str(exc).strip().splitlines()[0] if str(exc).strip() else ''}"
            outcome = Outcome(
                task=task,
                reward=0.0,
                stopped="error",
                attempts=0,
                error=message,
                episode_id=recorder.episode_id if recorder else "",
                status=status_of("error", error=message),
            )
        if recorder is not None and outcome.stopped == "error":
            recorder.finish(
                reward=outcome.reward,
                stopped="error",
                attempts=outcome.attempts,
                answer=outcome.answer,
                error=outcome.error,
            )
        if recorder is not None:
            recorder.status(outcome.status)
        if traces is not None:
            traces.flush()  # a process killed after this has lost nothing of the episode
    finally:
        try:
            session.close()
        except Exception as exc:  # the episode is over; the next one opens a session of its own
            logger.warning("task %s: its session could not be closed: %s", task.id, exc)
    return outcome


def _unfinished(graph: Graph, config: RunnableConfig) -> str | None:
    """Return the id of the episode that a killed process left in the graph's checkpoints; clear a finished one away."""
    saver = graph.checkpointer
    if not isinstance(saver, BaseCheckpointSaver):
        return None
    state = graph.get_state(config)
    if state.next and state.values.get("cmat"):
        return str(state.values["cmat"]["episode"])
    if state.created_at is not None:  # its messages would be this episode's conversation
        saver.delete_thread(config["configurable"]["thread_id"])
    return None


def run_episodes(
    graph: Graph,
    tasks: Sequence[Task],
    *,
    env: Env,
    traces: TraceStore | None = None,
    run: str = "",
    concurrency: int = 16,
    settings: dict[str, Any] | None = None,
    freeze_memory: bool | None = None,
    report: Report | None = None,
) -> list[Outcome]:
    """Play many tasks at once; results come in the order of the tasks.

    Args:
        graph: The compiled graph.
        tasks: What to play.
        env: Where to play.
        traces: Where to record; None records nothing.
        run: Label of the run in the traces.
        concurrency: Tasks in flight; the local engine batches their model calls.
        settings: Kept with each episode, to repeat it.
        freeze_memory: Only read long-term memory; None: learn from training tasks alone, so that no item of an
            evaluation split teaches another.
        report: Called with each outcome, for progress bars.

    Example:
        >>> from cmat_graph import create_cmat_graph
        >>> from cmat_graph.envs import load_env
        >>> from cmat_graph.models import ExpertChatModel
        >>> env = load_env("database", size=8)
        >>> graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
        >>> [outcome.reward for outcome in run_episodes(graph, env.tasks("train"), env=env)]
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]

    """

    def play(task: Task) -> Outcome:
        return run_episode(graph, task, env=env, traces=traces, run=run, settings=settings, freeze_memory=freeze_memory)

    outcomes: dict[int, Outcome] = {}
    with ThreadPoolExecutor(max_workers=max(1, concurrency), thread_name_prefix="episode") as pool:
        todo = iter(enumerate(tasks))
        running = {pool.submit(play, task): i for i, task in islice(todo, max(1, concurrency))}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    i = running.pop(future)
                    outcomes[i] = future.result()
                    if report is not None:
                        report(outcomes[i])
                    running |= {pool.submit(play, task): j for j, task in islice(todo, 1)}
        except BaseException:  # Ctrl-C or a broken tool: what is in flight ends, nothing new starts
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [outcomes[i] for i in sorted(outcomes)]
