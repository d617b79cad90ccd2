"""The smallest society, in a process of its own that may kill itself: `settle(folder, stage, number)`.

STAGE is the beginning of what a stage is called; it dies when the NUMBERth of its steps is done.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmat_graph.envs import load_env
from cmat_graph.progress import Stage
from cmat_graph.society import Findings, Setup, SocietySettings, reproduce
from cmat_graph.tuning.settings import TrainSettings

TRAIN = TEST = 12


def setup(folder: Path, **changed: object) -> Setup:
    """Return a society of two that learns for a few steps."""
    env = load_env("questions", size=TRAIN + TEST, seed=3)
    short = TrainSettings(rank=4, max_steps=4, batch_size=4, save_steps=2)
    told = {"agents": 2, "iterations": 2, "max_tokens": 96, "star_loops": 1, "equal_calls": 6, "measured": 4} | changed
    settings = SocietySettings(generator=short, critic=short, **told)  # type: ignore[arg-type]
    return Setup(
        folder=folder, env=env, train=env.tasks("train")[:TRAIN], test=env.tasks("test")[:TEST], settings=settings
    )


def settle(folder: Path, stage: str = "", number: int = 0) -> Findings:
    """Train it; die where it is said."""

    @contextmanager
    def stages(title: str) -> Iterator[Stage]:
        def show(done: int, total: int, note: str = "") -> None:
            if stage and title.startswith(stage) and done >= number:
                os.kill(os.getpid(), signal.SIGKILL)

        yield show

    return reproduce(setup(folder), methods=("samples", "debate", "maft"), stages=stages)
