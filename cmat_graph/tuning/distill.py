"""The whole way from recorded episodes to a registered adapter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.errors import ConfigurationError, EmptyHarvestError
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.curate import curate
from cmat_graph.tuning.harvest import harvest
from cmat_graph.tuning.old_dataset import hash_examples, write_dataset
from cmat_graph.tuning.settings import LoraSettings

NODES = ("assistant",)
"""The seats whose right answers can be told from the traces."""


def distill(
    traces: TraceStore,
    registry: AdapterRegistry,
    *,
    node: str = "assistant",
    base: str = "nano",
    name: str | None = None,
    run: str | None = None,
    split: str | None = "train",
    settings: LoraSettings = LoraSettings(),
    progress: Callable[[int, int, float], None] | None = None,
) -> AdapterCard:
    """Train an adapter for a node from what was recorded, and register it.

    Args:
        traces: Where the episodes are.
        registry: Where the adapter goes, with its dataset in `dataset/` and its card.
        node: The seat to train for.
        base: `nano`, a model folder, or a hub id.
        name: The adapter's name; by default the first digits of its dataset's hash.
        run: Take only episodes of this run.
        split: Take only episodes of this split; None takes all. Test tasks belong to no training.
        settings: How to train.
        progress: Called with step, steps and loss.

    Returns:
        The card of the new adapter.

    Raises:
        EmptyHarvestError: No recorded episode is worth training on.

    """
    if node not in NODES:
        raise ConfigurationError(f"no adapter can be distilled for {node!r}; known: {', '.join(NODES)}")
    location = resolve_base(base)
    found, counts = harvest(traces.episodes(run=run, split=split), node=node)
    examples = curate(found, counts)
    if not examples:
        told = (
            "; ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()) if count) or "no episodes at all"
        )
        raise EmptyHarvestError(
            f"nothing to train {node!r} on in split {split!r} ({told}); record solved episodes first, "
            "for example with: cmat-graph run --assistant expert --split train"
        )
    train = import_module("cmat_graph.tuning.train")  # torch, transformers, peft and trl live there
    start = time.monotonic()
    digest = hash_examples(examples)
    card = AdapterCard(
        name=name or digest[:8],
        node=node,
        base=base,
        base_hash=hash_base(location),
        dataset_hash=digest,
        settings=asdict(settings),
    )

    def write(folder: Path) -> AdapterCard:
        write_dataset(examples, folder / "dataset", counts=dict(counts))
        trained = train.train_lora(examples, location, folder, settings=settings, progress=progress)
        counts["examples left out: too long"] += trained.too_long
        return replace(
            card,
            examples=trained.examples,
            counts=dict(counts),
            loss=trained.loss,
            versions=trained.versions,
            seconds=round(time.monotonic() - start, 1),
        )

    return registry.add(card, write)
