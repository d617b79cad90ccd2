"""From recorded debates to one dataset an agent, and to the sets of the single models they are compared with."""

from __future__ import annotations

from cmat_graph.tuning.debates.agents import debate_sets
from cmat_graph.tuning.debates.folders import DebateSets
from cmat_graph.tuning.debates.preferences import preference_set, preference_sets
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.single import pooled_set, student_set, union_set
from cmat_graph.tuning.debates.star import star_set

__all__ = [
    "DebateSetSettings",
    "DebateSets",
    "debate_sets",
    "pooled_set",
    "preference_set",
    "preference_sets",
    "star_set",
    "student_set",
    "union_set",
]
