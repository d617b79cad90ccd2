"""From recorded episodes to an adapter: harvest, dataset, train. `distill` is the whole way."""

from __future__ import annotations

from cmat_graph.tuning.dataset import Dataset
from cmat_graph.tuning.distill import distill
from cmat_graph.tuning.harvest import harvest
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.sources import HarvestSettings

__all__ = ["Dataset", "HarvestSettings", "TrainSettings", "distill", "harvest"]
