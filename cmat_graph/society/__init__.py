"""Multiagent finetuning: a society of generators and critics that learns from its own debates."""

from __future__ import annotations

from cmat_graph.society.methods import METHODS
from cmat_graph.society.reproduce import CURVES, reproduce
from cmat_graph.society.results import Findings
from cmat_graph.society.saving import require_plots, save_findings
from cmat_graph.society.settings import Setup, SocietySettings

__all__ = [
    "CURVES",
    "METHODS",
    "Findings",
    "Setup",
    "SocietySettings",
    "reproduce",
    "require_plots",
    "save_findings",
]
