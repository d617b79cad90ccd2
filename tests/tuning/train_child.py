"""A training in a process of its own: to be killed at a step, or to be one of several under torchrun."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any


def train_as(told: dict[str, Any]) -> None:
    """Train as it is told, and print what came of it."""
    if told.get("file_bytes"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (told["file_bytes"], told["file_bytes"]))

    from cmat_graph.bases import NANO_FOLDER
    from cmat_graph.tuning.dataset import Dataset
    from cmat_graph.tuning.settings import TrainSettings
    from cmat_graph.tuning.train import train

    def progress(step: int, steps: int, loss: float) -> None:
        if step == told.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        done = train(
            Dataset(told["dataset"]),
            str(NANO_FOLDER),
            Path(told["target"]),
            settings=TrainSettings(**told["settings"]),
            work=Path(told["work"]),
            progress=progress,
        )
    except OSError as exc:
        print(json.dumps({"error": str(exc)}))
        return
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"loss": done.loss, "resumed_from": done.resumed_from, "processes": done.processes}))


if __name__ == "__main__":
    train_as(json.loads(sys.argv[1]))
