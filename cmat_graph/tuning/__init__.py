"""From recorded episodes to an adapter: harvest, curate, dataset, train. `distill` is the whole way."""

from __future__ import annotations

from cmat_graph.tuning.distill import distill
from cmat_graph.tuning.settings import LoraSettings

__all__ = ["LoraSettings", "distill"]
