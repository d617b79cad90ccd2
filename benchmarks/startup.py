"""How long the command line takes to answer, and the package to import, as whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from ._shared import figure

RUNS = 5


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def measure() -> Iterator[dict[str, Any]]:
    """Yield the figures; bare Python and LangGraph alternate with ours, so that noise hits all alike."""
    codes = {
        "python": "pass",
        "help": "from cmat_graph.cli import cli; cli(['--help'])",
        "langgraph": "import langgraph.graph",
        "graph": "from cmat_graph import create_cmat_graph",
    }
    taken: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(RUNS):
        for name, code in codes.items():
            taken[name].append(_seconds(code))
    median = {name: round(statistics.median(values), 3) for name, values in taken.items()}
    detail = {"medians_s": median, "runs": RUNS}
    yield figure("help_s", median["help"], "<=", 0.6, detail)
    yield figure("import_beyond_langgraph_s", median["graph"] - median["langgraph"], "<=", 1.0, detail)
