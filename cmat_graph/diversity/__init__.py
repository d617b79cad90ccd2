"""How different the agents of a society are: consensus, likelihood, embeddings, and divergence."""

from __future__ import annotations

from cmat_graph.diversity.measure import measure_diversity
from cmat_graph.diversity.results import DEFINITIONS, Diversity, Measure

__all__ = ["DEFINITIONS", "Diversity", "Measure", "measure_diversity"]
