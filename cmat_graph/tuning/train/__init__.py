"""Train a base on a dataset: `train` is the whole way, from rows to a folder of weights."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads collapse beside another busy process

try:
    from cmat_graph.tuning.train.guards import Progress
    from cmat_graph.tuning.train.run import Trained, train
except ImportError as exc:
    from cmat_graph.errors import MissingExtraError

    raise MissingExtraError.of("local", exc) from exc

__all__ = ["Progress", "Trained", "train"]
