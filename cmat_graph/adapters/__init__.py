"""Adapter folders and their cards: meeting place two. The tuning half writes them, the models read them.

adapters/<node>/<name>/adapter_config.json  adapter_model.safetensors  card.json  dataset/
adapters/<node>/current                     the name of the promoted adapter; an empty file: the base alone
adapters/<node>/promotions.jsonl            what was promoted and rolled back, oldest first
"""

from __future__ import annotations

from cmat_graph.adapters.card import CARD, CONFIG, WEIGHTS, AdapterCard
from cmat_graph.adapters.history import Promotion
from cmat_graph.adapters.registry import CURRENT, AdapterRegistry

__all__ = ["CARD", "CONFIG", "CURRENT", "WEIGHTS", "AdapterCard", "AdapterRegistry", "Promotion"]
