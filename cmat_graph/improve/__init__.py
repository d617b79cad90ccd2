"""Self-improvement in rounds: play with the current adapters, harvest, train, gate, swap. Goes on after any crash."""

from __future__ import annotations

from cmat_graph.improve.rounds import improve
from cmat_graph.improve.settings import ImproveSettings
from cmat_graph.improve.state import Improved, Point

__all__ = ["ImproveSettings", "Improved", "Point", "improve"]
