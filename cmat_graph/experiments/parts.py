"""The loop with one part taken away: the checker, the reflection, or long-term memory."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from functools import cache, partial
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langgraph.store.base import BaseStore

from cmat_graph.errors import ConfigurationError
from cmat_graph.experiments.lab import Lab, Opener, shuffled
from cmat_graph.experiments.records import Record
from cmat_graph.experiments.results import Result, compare_arms, score_arm
from cmat_graph.experiments.setup import Setup
from cmat_graph.graph import create_cmat_graph
from cmat_graph.memory.chroma import ChromaStore
from cmat_graph.memory.ranking import Policy
from cmat_graph.progress import Stages
from cmat_graph.rollout import Graph

KIND = "parts"
PARTS = ("checker", "reflection", "memory")
ARMS: dict[str, frozenset[str]] = {
    "all parts": frozenset(PARTS),
    **{f"no {part}": frozenset(PARTS) - {part} for part in PARTS},
    "no part": frozenset(),
}
PAIRS = tuple(("all parts", arm) for arm in ARMS if arm != "all parts")
NOTE = (
    "Without the checker every answer stands; without the reflection the next attempt is told the verdict only; memory "
    "holds what was learned in practice on training tasks, where the reward says what failed, and is frozen here. The "
    "last arm is one attempt of the assistant alone. A seed is a practice of its own. ± is one standard error over "
    "tasks and seeds."
)
Judge = Opener | Literal["probes"]


def run_parts(
    setup: Setup,
    *,
    assistant: Opener | None = None,
    checker: Judge = "probes",
    reflector: Opener | None = None,
    practice: int = 64,
    policy: Policy | None = None,
    settings: dict[str, Any] | None = None,
    stages: Stages | None = None,
) -> Result:
    """Measure what each part of the loop is worth to the same assistant.

    Args:
        setup: The tasks; memory practises on the training tasks. Nothing is tuned.
        assistant: Loads the assistant; None takes the base.
        checker: Loads the checker, or `"probes"` for the deterministic checks.
        reflector: Loads what writes lessons; None takes the assistant's model.
        practice: Training tasks that fill memory, in each arm that has it and for each seed.
        policy: Which lessons are shown.
        settings: What distinguishes these models from others; kept with the results.
        stages: Shows progress.

    Raises:
        ConfigurationError: There are no training tasks to practise on.

    """
    if not setup.train or practice < 1:
        raise ConfigurationError("memory needs training tasks to practise on; give --practice at least 1, and tasks")
    told = {"practice": practice, **(settings or {})}
    with Lab(setup, kind=KIND, settings=told, stages=stages) as lab:
        actor = cache(assistant) if assistant is not None else lab.base()
        writer = cache(reflector) if reflector is not None else actor
        judge: Judge = "probes" if checker == "probes" else cache(checker)
        bench = _Bench(lab, actor, judge, writer, practice, policy)
        records = {arm: bench.measure(arm) for arm in ARMS}
        tasks = [task.id for task in setup.test]
        return Result(
            kind=KIND,
            title=f"{setup.base} on {setup.env.name}, {len(tasks)} held-out tasks: one part taken away",
            arms=[score_arm(arm, each, tasks) for arm, each in records.items()],
            gaps=compare_arms(records, PAIRS, tasks),
            settings=lab.settings,
            note=NOTE,
        )


class _Bench:
    """Builds the graph of each arm, and fills its memory."""

    def __init__(
        self, lab: Lab, actor: Opener, judge: Judge, writer: Opener, practice: int, policy: Policy | None
    ) -> None:
        self.lab, self.actor, self.judge, self.writer = lab, actor, judge, writer
        self.practice, self.policy = practice, policy

    def measure(self, arm: str) -> list[Record]:
        """Play an arm; once where no seed changes it."""
        parts = ARMS[arm]
        seeds = self.lab.setup.seeds if "memory" in parts else 1
        return [self._play(arm, parts, seed) for seed in range(seeds)]

    def _play(self, arm: str, parts: Collection[str], seed: int) -> Record:
        with ExitStack() as opened:

            def graph() -> Graph:
                if "memory" not in parts:
                    return self._graph(parts, None)
                folder = self.lab.setup.folder / "memory" / f"{arm.replace(' ', '-')}.seed-{seed}"
                store = opened.enter_context(ChromaStore(folder))
                tasks = shuffled(self.lab.setup.train, seed)[: self.practice]
                practise = partial(self._graph, parts, store, use_reward=True)
                self.lab.practise(f"Practise: {arm}, seed {seed}", tasks, practise, run=f"practice: {arm}, seed {seed}")
                return self._graph(parts, store)

            return self.lab.play(arm, seed, graph)

    def _graph(self, parts: Collection[str], store: BaseStore | None, *, use_reward: bool = False) -> Graph:
        """Build the loop with these parts; `use_reward` is for practice, where the environment says what failed."""
        judge: BaseChatModel | Literal["probes"] | None = None
        if "checker" in parts:
            judge = "probes" if self.judge == "probes" else self.judge()
        return create_cmat_graph(
            self.actor(),
            checker=judge,
            reflector=self.writer() if "reflection" in parts else None,
            store=store,
            memory_policy=self.policy,
            max_attempts=self.lab.setup.attempts if parts else 1,
            use_reward=use_reward,
        ).compile()
