"""What several benchmarks do alike: time things in turns, and word a figure."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any


def in_turns(
    runs: dict[str, Callable[[], object]], rounds: int, between: Callable[[], None] | None = None
) -> dict[str, float]:
    """Run each in turn, many times; return each one's median seconds."""
    taken = samples(runs, rounds, between)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def samples(
    runs: dict[str, Callable[[], object]], rounds: int, between: Callable[[], None] | None = None
) -> dict[str, list[float]]:
    """Run each in turn, so that noise hits all alike; return the seconds of each run."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3 if rounds > 10 else 1):
            run()
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run))
            if between is not None:
                between()
    return taken


def seconds(run: Callable[[], object]) -> float:
    """Time one call, with the garbage of what came before taken out first."""
    gc.collect(0)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def figure(metric: str, value: float, sign: str, bound: float, detail: dict[str, Any]) -> dict[str, Any]:
    """Word a figure with its target."""
    ok = value <= bound if sign == "<=" else value >= bound
    return {"metric": metric, "value": round(value, 3), "target": f"{sign} {bound}", "ok": ok, "detail": detail}


def say(text: str) -> None:
    """Tell on stderr how far a long benchmark is; figures alone go to stdout."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
