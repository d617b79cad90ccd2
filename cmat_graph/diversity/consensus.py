"""How far the agents agree in the end (Multiagent Finetuning, appendix C.1)."""

from __future__ import annotations

from cmat_graph.diversity.replies import Sample
from cmat_graph.diversity.results import Measure


def measure_consensus(sample: Sample) -> Measure:
    """Return the share of agents that give the consensus, over all questions, and of how many each agent does."""
    each = {
        str(agent): sum(agent < len(hits) and hits[agent] for hits in sample.hits) / len(sample.hits)
        for agent in range(sample.agents)
    }
    return Measure.of(sample.agreements, each)
