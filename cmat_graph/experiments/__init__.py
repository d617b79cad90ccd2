"""The paper's questions as experiments: each one call, paired, with standard errors, as tables and a plot."""

from __future__ import annotations

from cmat_graph.experiments.loop import run_loop
from cmat_graph.experiments.mix import run_mix
from cmat_graph.experiments.parts import run_parts
from cmat_graph.experiments.results import Result
from cmat_graph.experiments.saving import save_result
from cmat_graph.experiments.setup import Setup

__all__ = ["Result", "Setup", "run_loop", "run_mix", "run_parts", "save_result"]
