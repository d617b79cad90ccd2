"""Agent-specific instructions, general ones, and both: the paper's ablation (its Table 3; F15), one script."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cmat_graph.errors import ConfigurationError
from cmat_graph.experiments.general import Instruction, follow, make_instructions, write_instructions
from cmat_graph.experiments.lab import Lab, Opener
from cmat_graph.experiments.records import Record
from cmat_graph.experiments.results import Result, compare_arms, score_arm
from cmat_graph.experiments.setup import Setup
from cmat_graph.graph import create_cmat_graph
from cmat_graph.progress import Stages
from cmat_graph.rollout import Graph
from cmat_graph.splits import is_validation
from cmat_graph.tuning.sources import HarvestSettings

KIND = "mix"
BASE, AGENT, GENERAL, MIXED = "base", "agent only", "general only", "mixed"
PAIRS = ((MIXED, AGENT), (MIXED, GENERAL), (AGENT, GENERAL), (AGENT, BASE))
ETA = 0.5
"""Share of the loss that agent rows have in the mixed arm. AgentTuning takes 0.2 for models that chat; a base that
knows no instructions at all would learn little acting from that."""
ASKED = 128
"""Held-out general instructions that every arm is asked, where no file is given."""


def run_mix(
    setup: Setup,
    *,
    eta: float = ETA,
    general: Path | None = None,
    asked: int = ASKED,
    stages: Stages | None = None,
) -> Result:
    """Train on agent rows, on general ones and on both, for as many steps, and measure each on held-out tasks.

    Args:
        setup: The tasks, the base, and how adapters are trained.
        eta: Share of the loss that agent rows have in the mixed arm.
        general: JSONL file of general instructions; None makes small ones.
        asked: How many held-out instructions every arm is asked besides, where they are made.
        stages: Shows progress.

    Raises:
        ConfigurationError: There is nothing to train on, or `eta` leaves nothing to mix.

    """
    if not 0 < eta < 1 or not setup.train:
        raise ConfigurationError("the mixed arm needs a share between 0 and 1 (--eta), and training tasks")
    steps = setup.training.max_steps or steps_of(setup)
    setup = replace(setup, training=replace(setup.training, max_steps=steps))
    told: dict[str, Any] = {
        "eta": eta,
        "general": _hash(general) if general else {"made": len(setup.train), "asked": asked},
    }
    with Lab(setup, kind=KIND, settings=told, stages=stages) as lab:
        file = general or _make(lab.setup)
        questions = [] if general else make_instructions(asked, seed=1, held_out=True)
        lab.teach()
        records = {BASE: [_measure(lab, BASE, 0, lab.base(), questions)]}
        for arm, share in ((AGENT, 1.0), (GENERAL, 0.0), (MIXED, eta)):
            harvest = HarvestSettings(eta=share, general=str(file) if share < 1 else "")
            records[arm] = [_train(lab, arm, seed, harvest, questions) for seed in range(setup.seeds)]
        tasks = [task.id for task in setup.test]
        return Result(
            kind=KIND,
            title=f"{setup.base} on {setup.env.name}: {len(tasks)} held-out tasks",
            arms=[score_arm(arm, each, tasks) for arm, each in records.items()],
            gaps=compare_arms(records, PAIRS, tasks),
            settings=lab.settings,
            note=(
                f"Each arm is trained for {steps} steps; in the mixed one agent rows have {eta:.0%} of the loss. One "
                "attempt, no checker. general: held-out general instructions that were followed to the letter. A seed "
                "is a training of its own. ± is one standard error over tasks and seeds."
            ),
        )


def steps_of(setup: Setup) -> int:
    """Return the steps that training on the agent rows alone takes, so that each arm is given as many."""
    rows = sum(not is_validation(task.id) for task in setup.train)
    return max(1, math.ceil(setup.training.epochs * rows / setup.training.batch_size))


def _train(lab: Lab, arm: str, seed: int, harvest: HarvestSettings, asked: Sequence[Instruction]) -> Record:
    if (known := lab.records.read(arm, seed)) is not None:
        return known
    card = lab.distil(f"{arm.replace(' ', '-')}-{seed}", seed, harvest)
    return _measure(lab, arm, seed, lab.tuned(card), asked, adapter=card.key)


def _measure(
    lab: Lab, arm: str, seed: int, model: Opener, asked: Sequence[Instruction], *, adapter: str = ""
) -> Record:
    def graph() -> Graph:
        return create_cmat_graph(model(), max_attempts=1).compile()

    ask: Callable[[], dict[str, float]] | None = None
    if asked:
        ask = partial(_ask, model, asked, lab.setup.concurrency)
    return lab.play(arm, seed, graph, adapter=adapter, general=ask)


def _ask(model: Opener, asked: Sequence[Instruction], concurrency: int) -> dict[str, float]:
    return follow(model(), asked, concurrency=concurrency)


def _make(setup: Setup) -> Path:
    """Write as many instructions as there are agent rows: as many of each are seen in as many steps."""
    file = setup.folder / "general.jsonl"
    write_instructions(make_instructions(len(setup.train)), file)
    return file


def _hash(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as exc:
        raise ConfigurationError(f"no general instructions in {file}: {exc}; give a JSONL file") from exc
