"""How likely each agent finds what the others said (Multiagent Finetuning, section 4.2, figure 3)."""

from __future__ import annotations

from cmat_graph.diversity.averaging import average
from cmat_graph.diversity.crossing import Crossed
from cmat_graph.diversity.results import Measure


def measure_nll(crossed: Crossed) -> Measure:
    """Average over all choices of the agent h that is held out.

    A pair `h|j` is agent j's replies under agent h's model.
    """
    return average(
        (reading.question, f"{held_out}|{reading.agent}", crossed.nll[model][number])
        for number, reading in enumerate(crossed.readings)
        for held_out, model in enumerate(crossed.models)
        if held_out != reading.agent
    )
