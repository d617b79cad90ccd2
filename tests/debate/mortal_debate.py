"""A run of debates whose process dies in the middle: `mortal_debate.py FOLDER CALLS` kills itself at that call."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from debaters import Agent, sums_up

from cmat_graph.debate import run_debates
from cmat_graph.traces import SQLTraceStore
from cmat_graph.types import Task

TASKS = [Task(id=str(i), prompt=f"What is {i}+{i}?") for i in range(7)]


def play(folder: Path, die_at: int = 0, *, batch: int = 3):
    """Play the same run; each call is written to a file first. Replies depend on the prompt alone."""
    lock, log = threading.Lock(), folder / "calls"

    def say(prompt):
        told = repr(prompt)
        with lock, log.open("a") as file:
            file.write(hashlib.sha256(told.encode()).hexdigest() + "\n")
            calls = len(log.read_text().splitlines()) + 1
        if die_at and calls >= die_at:
            time.sleep(0.2)  # what was recorded before is written by now
            os.kill(os.getpid(), signal.SIGKILL)
        return f"Answer: {int(hashlib.sha256(told.encode()).hexdigest(), 16) % 3}"

    agents = [Agent(script=say) for _ in range(3)]
    traces = SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")
    return run_debates(
        TASKS,
        generators=agents,
        critics=agents,
        summariser=Agent(script=lambda prompt: say(prompt) + sums_up(prompt)),
        traces=traces,
        run="mortal",
        batch=batch,
        concurrency=1,
    )


if __name__ == "__main__":
    play(Path(sys.argv[1]), int(sys.argv[2]))
