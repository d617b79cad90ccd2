"""What the agents remember: the trajectory of an attempt, and lessons across tasks."""

from __future__ import annotations

from cmat_graph.memory.reflections import recall, remember
from cmat_graph.memory.short_term import window

__all__ = ["recall", "remember", "window"]
