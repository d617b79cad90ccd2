"""From recorded episodes to a dataset: collect, filter, distil, augment, mix; read row by row, memory stays flat."""

from __future__ import annotations

from cmat_graph.tuning.harvest.run import harvest

__all__ = ["harvest"]
