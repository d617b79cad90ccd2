"""Datasets for other trainers: LLaMA-Factory, OpenAI, TRL, ms-swift, rLLM, and AgentInstruct's own form.

Whatever the form, a message of weight 0 is never a target: a form that knows the loss of single turns is told it, and
one that does not gets a row for each target, which is its last message.
"""

from __future__ import annotations

from cmat_graph.tuning.interchange.export import FORMS, export

__all__ = ["FORMS", "export"]
