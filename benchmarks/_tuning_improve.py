"""What rounds of `improve` bring on the generated database tasks: base, after one round, after three.

Two improvements from the same base, on the same tasks: with a teacher for what the model cannot solve, and alone on its
own successes (STaR). The curve is of what is promoted, on test tasks that took part in nothing else; each point has
its standard error, and its paired gain. The curve must not fall: the gate is there for that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from cmat_graph.envs import load_env
from cmat_graph.improve import Improved, ImproveSettings, improve
from cmat_graph.models import ExpertChatModel
from cmat_graph.tuning import HarvestSettings, TrainSettings

from ._shared import figure, say

SIZE, ROUNDS, TEST, EPOCHS = 256, 3, 64, 4
HELD = 0.3
"""Share of the training tasks that the gate plays: with a dozen of them no gain of a sixth is beyond chance."""


def measure_improve(size: int = SIZE, folder: Path | None = None) -> Iterator[dict[str, Any]]:
    """Yield `improve_least_step` and `improve_alone_least_step`: the least change from one round to the next.

    Args:
        size: How many tasks to make; three quarters are for training and the gate.
        folder: Where everything lies, to go on after an interruption; None takes one that is removed.

    """
    with tempfile.TemporaryDirectory(prefix="cmat-bench-") as scratch:
        place = folder or Path(scratch)
        env = load_env("database", size=size, seed=7)
        teacher = ExpertChatModel(demonstrations=env.demonstrations())
        for metric, who, samples in (("improve", teacher, 1), ("improve_alone", None, 3)):
            start = time.monotonic()
            improved = improve(
                place / metric,
                env=env,
                settings=ImproveSettings(
                    rounds=ROUNDS,
                    samples=samples,
                    attempts=1,
                    harvest=HarvestSettings(validation_share=HELD),
                    train=TrainSettings(epochs=EPOCHS),
                ),
                teacher=who,
                test=env.tasks("test")[:TEST],
                report=_Say(metric),
            )
            yield _figure(metric, improved, seconds=time.monotonic() - start)


def _figure(metric: str, improved: Improved, *, seconds: float) -> dict[str, Any]:
    rates = [point.success_rate for point in improved.curve]
    least = min(after - before for before, after in pairwise(rates))
    detail = {
        "model": "TinyAgent-nano",
        "curve": [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(p).items()} for p in improved.curve
        ],
        "rounds": [
            {"collect": notes["collect"], **{node: told["verdict"] for node, told in notes["nodes"].items()}}
            for notes in improved.rounds
        ],
        "seconds": round(seconds),
    }
    return figure(f"{metric}_least_step", least, ">=", 0.0, detail)


class _Say:
    """Tells a stage's beginning and end."""

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if done in (0, total):
            say(f"{self._metric}, {stage}: {done} of {total} {note}")
