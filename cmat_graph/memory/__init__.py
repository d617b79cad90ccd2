"""What the agents remember: the trajectory of an attempt, and lessons across tasks."""

from __future__ import annotations

from cmat_graph.memory.audit import lessons, prune
from cmat_graph.memory.ranking import Lesson, Policy
from cmat_graph.memory.reflections import credit, recall, remember
from cmat_graph.memory.short_term import window
from cmat_graph.memory.trimming import trim

__all__ = ["Lesson", "Policy", "credit", "lessons", "prune", "recall", "remember", "trim", "window"]
