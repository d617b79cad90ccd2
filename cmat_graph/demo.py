"""The whole loop in one directory: play, record, distil, swap the node, measure. What `cmat-graph demo` runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.envs import load_env
from cmat_graph.evaluation import ArmResult, Difference, compare, evaluate, four_arms
from cmat_graph.gate import GateResult, gate, settle
from cmat_graph.graph import create_cmat_graph
from cmat_graph.memory.chroma import ChromaStore
from cmat_graph.models import ExpertChatModel, load_model
from cmat_graph.rollout import run_episodes
from cmat_graph.splits import validation_tasks
from cmat_graph.team import Team
from cmat_graph.traces.sql import SQLTraceStore
from cmat_graph.tuning import HarvestSettings, TrainSettings, distill


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSize:
    """How much of everything a demo does."""

    tasks: int
    practice: int
    """Training tasks that the untrained base tries, so that its failures leave lessons."""
    test: int
    epochs: float


FULL = DemoSize(tasks=512, practice=16, test=100, epochs=4)
QUICK = DemoSize(tasks=128, practice=4, test=16, epochs=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What a demo found."""

    arms: list[ArmResult]
    gain: Difference
    """`tuned` against `base`, paired."""
    card: AdapterCard
    gate: GateResult
    """Whether the adapter was promoted: on tasks that it was neither trained nor measured on."""
    lessons: int


class Stage(Protocol):
    """Shows how far one stage is."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done."""


Stages = Callable[[str], AbstractContextManager[Stage]]
"""Opens a stage by its title."""


def run_demo(directory: Path, *, size: DemoSize = FULL, base: str = "nano", stages: Stages) -> DemoResult:
    """Run the loop in a directory; a second run goes on with the traces of the first and trains anew.

    Args:
        directory: Everything made lies here: `traces.db`, `reflections/`, `adapters/`, `evaluation.json`.
        size: `FULL` or `QUICK`.
        base: The base model to distil into.
        stages: Shows progress.

    """
    directory.mkdir(parents=True, exist_ok=True)
    env = load_env("database", size=size.tasks, seed=7)
    train = env.tasks("train")
    test = env.tasks("test")[: size.test]
    traces = SQLTraceStore(f"sqlite:///{directory / 'traces.db'}")
    store = ChromaStore(directory / "reflections")
    registry = AdapterRegistry(directory / "adapters")

    with stages("Play: the expert") as show:
        done = {e.task.id for e in traces.episodes(run="expert", solved=True)}
        todo = [task for task in train if task.id not in done]
        played = [len(train) - len(todo)]
        expert = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations()), max_attempts=1).compile()

        def count(outcome: object) -> None:
            played[0] += 1
            show(played[0], len(train))

        run_episodes(expert, todo, env=env, traces=traces, run="expert", concurrency=4, report=count)
        show(len(train), len(train))

    with stages("Practise: the base with the loop") as show:
        model = load_model(base)
        practice = train[: size.practice]
        tried = [0]

        def practised(outcome: object) -> None:
            tried[0] += 1
            show(tried[0], len(practice))

        loop = create_cmat_graph(model, checker="probes", store=store, max_attempts=2).compile()
        run_episodes(loop, practice, env=env, traces=traces, run="practice", report=practised)
        lessons = len(store.search(("reflections",), limit=10_000))

    with stages("Distil: a LoRA adapter") as show:

        def trained(step: int, steps: int, loss: float) -> None:
            show(step, steps, f"loss {loss:.3f}")

        card = distill(
            traces,
            registry,
            base=base,
            harvest=HarvestSettings(run="expert"),
            settings=TrainSettings(epochs=size.epochs),
            held_out=test,
            progress=trained,
        )

    with stages("Gate: is it better than the base?") as show:
        judged = gate(
            card, validation_tasks(train), env=env, registry=registry, team=Team(base=base, probes=False), report=show
        )
        card = settle(registry, judged)

    tuned = load_model(base, adapter=card.id, adapters=registry)
    arms = four_arms(model, tuned, store=store)
    with stages("Measure: four arms") as show:
        measured = [0]

        def report(arm: str) -> Callable[[object], None]:
            def after(outcome: object) -> None:
                measured[0] += 1
                show(measured[0], len(test) * len(arms), arm)

            return after

        results = evaluate(arms, test, env=env, traces=traces, report=report)
    by_name = {result.name: result for result in results}
    gain = compare(by_name["tuned"], by_name["base"])
    card = registry.update(replace(card, scores={result.name: result.to_json() for result in results}))
    saved = {"arms": [result.to_json() for result in results], "adapter": card.id}
    (directory / "evaluation.json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    return DemoResult(arms=results, gain=gain, card=card, gate=judged, lessons=lessons)
