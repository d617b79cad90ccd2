"""Real environments to play tasks in. `load_env` opens one by its name."""

from __future__ import annotations

from cmat_graph.envs.load import ENVIRONMENTS, load_env

__all__ = ["ENVIRONMENTS", "load_env"]
