"""A small improvement in a process of its own, which may kill itself: `tell(directory, stage, number)`.

STAGE is the beginning of what `improve` reports, or `promote`; it dies when the NUMBERth of its steps is done.
"""

from __future__ import annotations

import json
import os
import signal

from cmat_graph import AdapterRegistry
from cmat_graph.envs.database import DatabaseEnv
from cmat_graph.envs.database.generated import generate_records
from cmat_graph.improve import ImproveSettings, improve
from cmat_graph.models import ExpertChatModel
from cmat_graph.tuning import HarvestSettings, TrainSettings

ENV = DatabaseEnv(generate_records(32, seed=5), max_rounds=3)
SETTINGS = ImproveSettings(
    rounds=2,
    samples=1,
    attempts=1,
    alpha=0.5,
    harvest=HarvestSettings(validation_share=0.4),
    train=TrainSettings(max_steps=10, batch_size=4, save_steps=3),
)


class Mortal(AdapterRegistry):
    """Dies right after a promotion, before anybody can note it."""

    def promote(self, card, *, why=""):
        super().promote(card, why=why)
        die()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def run(directory, stage="", number=0):
    """Improve; die where it is said."""

    def report(now, done, total, note=""):
        if stage and now.startswith(stage) and done >= number:
            die()

    registry = (Mortal if stage == "promote" else AdapterRegistry)(f"{directory}/adapters")
    return improve(
        directory,
        env=ENV,
        settings=SETTINGS,
        teacher=ExpertChatModel(demonstrations=ENV.demonstrations()),
        test=ENV.tasks("test")[:3],
        registry=registry,
        report=report,
    )


def tell(directory, stage="", number=0):
    """Improve, and print what came of it."""
    print(json.dumps(run(directory, stage, number).to_json()))
