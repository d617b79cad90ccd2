"""Where an experiment is done: one folder with its traces, adapters and records. Nothing in it is done twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_core.language_models import BaseChatModel

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import EngineError
from cmat_graph.evaluation import summarise
from cmat_graph.experiments.records import Record
from cmat_graph.experiments.setup import Setup
from cmat_graph.graph import create_cmat_graph
from cmat_graph.models import load_model
from cmat_graph.progress import Stages, silent
from cmat_graph.records import Records
from cmat_graph.resuming import play
from cmat_graph.rollout import Graph, Outcome
from cmat_graph.traces.sql import SQLTraceStore
from cmat_graph.tuning import distill
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Episode, Task

Opener = Callable[[], BaseChatModel]
"""Loads a model when it is first needed: an experiment whose arms are all recorded loads none."""
TEACHER = "teacher"
"""The run label of the teacher's episodes."""
NODE = "assistant"


class Lab:
    """Do the work of an experiment's arms, and leave out what is done already.

    Args:
        setup: What the arms have in common.
        kind: Which experiment.
        settings: What else must be the same for its results to belong together.
        stages: Shows progress; None shows none.

    Raises:
        ConfigurationError: The folder holds another experiment.

    """

    def __init__(
        self, setup: Setup, *, kind: str, settings: dict[str, Any] | None = None, stages: Stages | None = None
    ) -> None:
        self.setup = setup
        self.kind = kind
        self.settings = {**setup.describe(), **(settings or {})}
        self.stages: Stages = stages or (lambda title: nullcontext(silent))
        self.records = Records(setup.folder, kind=kind, settings=self.settings, record=Record)
        self.registry = AdapterRegistry(setup.folder / "adapters")
        self.traces = SQLTraceStore(f"sqlite:///{setup.folder / 'traces.db'}")

    def __enter__(self) -> Self:
        """Return the lab."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        """Close the traces."""
        self.traces.close()

    def base(self) -> Opener:
        """Return what loads the base, once."""
        return cache(lambda: load_model(self.setup.base))

    def tuned(self, card: AdapterCard) -> Opener:
        """Return what loads the base with an adapter, once."""
        registry = AdapterRegistry(Path(card.folder).parents[1])
        return cache(lambda: load_model(self.setup.base, adapter=card.id, adapters=registry))

    def teach(self) -> None:
        """Record how the teacher plays the training tasks."""

        def graph() -> Graph:
            env = self.setup.env
            teacher = load_model(self.setup.teacher, demonstrations=env.demonstrations)
            return create_cmat_graph(teacher, max_attempts=1).compile()

        self.practise(f"Play: {self.setup.teacher}", self.setup.train, graph, run=TEACHER)

    def practise(self, title: str, tasks: Sequence[Task], graph: Callable[[], Graph], *, run: str) -> None:
        """Play training tasks that this run has not finished yet."""
        with self.stages(title) as show:
            play(
                graph,
                tasks,
                env=self.setup.env,
                traces=self.traces,
                run=run,
                concurrency=self.setup.concurrency,
                report=show,
            )

    def distil(self, name: str, seed: int, harvest: HarvestSettings) -> AdapterCard:
        """Train an adapter from what the teacher did, unless there is one of this name."""
        if (known := self.registry.find(NODE, name)) is not None:
            return known
        with self.stages(f"Distil: {name}") as show:
            return distill(
                self.traces,
                self.registry,
                node=NODE,
                base=self.setup.base,
                name=name,
                harvest=replace(harvest, node=NODE, run=TEACHER, seed=seed),
                settings=replace(self.setup.training, seed=seed),
                held_out=self.setup.test,
                progress=lambda step, steps, loss: show(step, steps, f"loss {loss:.3f}"),
            )

    def play(
        self,
        arm: str,
        seed: int,
        graph: Callable[[], Graph],
        *,
        adapter: str = "",
        general: Callable[[], dict[str, float]] | None = None,
    ) -> Record:
        """Play the held-out tasks with one arm, unless that is recorded. Memory is frozen.

        Args:
            arm: Its name.
            seed: Which repetition.
            graph: Builds what plays.
            adapter: Which weights play.
            general: Asks general instructions besides.

        Raises:
            EngineError: Every episode broke off; that is no result.

        """
        if (known := self.records.read(arm, seed)) is not None:
            return known
        tasks = self.setup.test
        label = f"{arm}, seed {seed}"
        built = graph()  # which may load models, or practise
        start = time.monotonic()
        with self.stages(f"Measure: {label}") as show:
            outcomes = play(
                lambda: built,
                tasks,
                env=self.setup.env,
                traces=self.traces,
                run=label,
                concurrency=self.setup.concurrency,
                settings={"experiment": self.kind, "arm": arm, "seed": seed, "adapter": adapter},
                freeze_memory=True,
                report=show,
            )
            seconds = time.monotonic() - start
            result = summarise(label, outcomes, self.setup.env, episodes=self._failed(label, outcomes))
            if result.stopped.get("error", 0) == len(tasks):
                why = next(outcome.error for outcome in outcomes)
                raise EngineError(f"every episode of {label!r} broke off ({why}); mend that, the same command goes on")
            asked = general() if general is not None else {}
        record = Record(
            arm=arm,
            seed=seed,
            rewards={task.id: reward for task, reward in zip(tasks, result.rewards, strict=True)},
            score=result.score,
            stopped=result.stopped,
            failures=result.failures,
            seconds=round(seconds, 2),
            adapter=adapter,
            general=asked,
        )
        return self.records.write(record)

    def _failed(self, run: str, outcomes: Sequence[Outcome]) -> Iterator[Episode]:
        """Read back what failed of these outcomes alone: the run may hold episodes that broke off before."""
        ids = {outcome.episode_id for outcome in outcomes}
        yield from (e for e in self.traces.episodes(run=run, solved=False) if e.id in ids)


def shuffled(tasks: Sequence[Task], seed: int) -> list[Task]:
    """Return tasks in an order of the seed's own."""
    order = list(tasks)
    random.Random(f"practice:{seed}").shuffle(order)
    return order
