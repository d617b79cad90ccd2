"""Every agent's model on every agent's replies: the sums from which likelihood and divergence are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cmat_graph.diversity.forcing import BARE, Batch, Forcer, Row, token_kl, token_nll


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One agent's reply to one question, as tokens."""

    question: int
    agent: int
    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """What all models say to all replies, each value a mean over the reply's tokens."""

    readings: list[Reading]
    models: list[str]
    """Each agent's model, by name."""
    nll: dict[str, list[float]]
    """By model, one value a reading: -log p of its tokens."""
    kl: dict[str, list[float]]
    """By model, one value a reading: KL of its own agent's model to this one. Exactly 0 to itself."""


def cross(forcer: Forcer, readings: Sequence[Reading], models: Sequence[str]) -> Crossed:
    """Let every model read every reply.

    Each of N models (and the base) reads N agents' replies, so N (N + 1) passes; models that are the same read once.

    Args:
        forcer: Holds them.
        readings: The replies.
        models: Each agent's model, by name; `BARE` for the base.

    """
    names = sorted({*models, BARE})
    nll = {name: torch.zeros(len(readings), dtype=torch.float64) for name in names}
    kl = {name: torch.zeros(len(readings), dtype=torch.float64) for name in names}
    for own in sorted(set(models)):
        numbers = [number for number, reading in enumerate(readings) if models[reading.agent] == own]
        places = torch.tensor(numbers, dtype=torch.long)
        for batch in forcer.batches([readings[number].row for number in numbers]):
            mine = forcer.logits(own, batch)
            _add(nll[own], places, batch, token_nll(mine, batch.labels))
            for name in names:
                if name != own:
                    other = forcer.logits(name, batch)
                    _add(nll[name], places, batch, token_nll(other, batch.labels))
                    _add(kl[name], places, batch, token_kl(mine, other))
    sizes = torch.tensor([len(reading.row.reply_ids) for reading in readings], dtype=torch.float64)
    return Crossed(
        readings=list(readings),
        models=list(models),
        nll={name: (sums / sizes).tolist() for name, sums in nll.items()},
        kl={name: (sums / sizes).tolist() for name, sums in kl.items()},
    )


def _add(sums: torch.Tensor, places: torch.Tensor, batch: Batch, values: torch.Tensor) -> None:
    sums.index_add_(0, places[batch.rows.cpu()], values.cpu())
