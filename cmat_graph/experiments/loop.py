"""Base, tuned, and tuned with the loop: the paper's Figure 1 at the scale of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cmat_graph.adapters import AdapterCard
from cmat_graph.evaluation import four_arms
from cmat_graph.experiments.lab import Lab, Opener
from cmat_graph.experiments.results import Result, compare_arms, score_arm
from cmat_graph.experiments.setup import Setup
from cmat_graph.progress import Stages
from cmat_graph.rollout import Graph
from cmat_graph.tuning.sources import HarvestSettings

KIND = "loop"
PAIRS = (
    ("tuned", "base"),
    ("tuned+loop", "tuned"),
    ("tuned+loop", "base"),
    ("base+loop", "base"),
)
NOTE = (
    "loop: the checker's probes, reflection and retry; without it there is one attempt and no checker. Each seed is a "
    "training of its own. ± is one standard error over tasks and seeds."
)


def run_loop(setup: Setup, *, adapters: Sequence[AdapterCard] = (), stages: Stages | None = None) -> Result:
    """Measure a base and its adapter on held-out tasks, each with and without the loop.

    Args:
        setup: The tasks, the base, and how adapters are trained: one for each seed, from the teacher's episodes.
        adapters: Adapters made before; then none is trained, and each of them counts as a seed.
        stages: Shows progress.

    """
    settings = {"adapters": [card.key for card in adapters]} if adapters else {}
    with Lab(setup, kind=KIND, settings=settings, stages=stages) as lab:
        cards = list(adapters)
        if not cards:
            lab.teach()
            cards = [lab.distil(f"seed-{seed}", seed, HarvestSettings()) for seed in range(setup.seeds)]
        return play_loop(lab, base=lab.base(), tuned={card.key: lab.tuned(card) for card in cards})


def play_loop(lab: Lab, *, base: Opener, tuned: dict[str, Opener]) -> Result:
    """Play the four arms.

    Args:
        lab: Where.
        base: Loads the base.
        tuned: Loads each tuned model, by what its records say played. Each is a seed.

    """
    records = {name: [lab.play(name, 0, partial(_arm, lab, base, loop=loop))] for name, loop in _names("base")}
    for name, loop in _names("tuned"):
        records[name] = [
            lab.play(name, seed, partial(_arm, lab, opener, loop=loop), adapter=label)
            for seed, (label, opener) in enumerate(tuned.items())
        ]
    tasks = [task.id for task in lab.setup.test]
    return Result(
        kind=KIND,
        title=f"{lab.setup.base} on {lab.setup.env.name}: {len(tasks)} held-out tasks",
        arms=[score_arm(name, each, tasks) for name, each in records.items()],
        gaps=compare_arms(records, PAIRS, tasks),
        settings=lab.settings,
        note=NOTE,
    )


def _names(model: str) -> tuple[tuple[str, bool], tuple[str, bool]]:
    return (model, False), (f"{model}+loop", True)


def _arm(lab: Lab, opener: Opener, *, loop: bool) -> Graph:
    alone, looped = four_arms(opener(), None, max_attempts=lab.setup.attempts).values()
    return looped if loop else alone
