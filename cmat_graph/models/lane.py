"""Rows that decode together: they join and leave at step boundaries, so that no reply waits for a longer one.

A lane belongs to one adapter of one model and is used by one thread. Rows are padded on the left; those that end are
taken out of the cache, those that come are prefilled on their own and put beside the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

PAD_TO = 32
"""Prompt widths are multiples of this: with every new shape oneDNN keeps more memory."""
LOOP_TOKENS = 96
"""A reply whose last tokens, this many, only repeat a piece of at most a third of them is going nowhere: it ends."""


class Sampling(NamedTuple):
    """How one reply is drawn."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    seed: int | None = None
    """The same seed repeats a reply, whoever else is in the lane."""


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One request and what was answered so far."""

    prompt: list[int]
    adapter: str
    sampling: Sampling
    future: Future[Any] = field(default_factory=Future)
    tokens: list[int] = field(default_factory=list)
    generator: torch.Generator | None = None

    def is_done(self, ends: set[int]) -> bool:
        """Tell whether the reply has ended: by its end token, its limit, or by going in circles."""
        return self.tokens[-1] in ends or len(self.tokens) >= self.sampling.max_tokens or _goes_in_circles(self.tokens)


class Lane:
    """The rows in flight for one adapter."""

    def __init__(self, model: Any, *, pad_token: int, ends: set[int]) -> None:
        self._model = model
        self._pad_token = pad_token
        self._ends = ends
        self._cache: Any = None
        self._mask = torch.empty(0, 0, dtype=torch.long)
        self.rows: list[Row] = []

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> list[Row]:
        """Prefill new rows and draw their first token; return those that are done already."""
        width = -(-max(len(row.prompt) for row in rows) // PAD_TO) * PAD_TO
        ids = torch.full((len(rows), width), self._pad_token, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[i, width - len(row.prompt) :] = 1
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        cache = DynamicCache()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._forward(ids, mask, positions, cache)
        for row, scores in zip(rows, logits, strict=True):
            row.tokens.append(_draw(scores, row))
        if self.rows:
            self._merge(cache, mask)
        else:
            self._cache, self._mask = cache, mask
        self.rows += rows
        return self._let_go()

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Draw one token for each row; return the rows that are done."""
        last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._mask.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        positions = self._mask.sum(1, keepdim=True) - 1
        logits = self._forward(last, self._mask, positions, self._cache)
        for row, scores in zip(self.rows, logits, strict=True):
            row.tokens.append(_draw(scores, row))
        return self._let_go()

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def _merge(self, cache: Any, mask: torch.Tensor) -> None:
        """Put newly prefilled rows beside those in flight, all padded on the left to one width."""
        width = max(self._mask.shape[1], mask.shape[1])

        def widen(tensor: torch.Tensor, dim: int) -> torch.Tensor:
            missing = width - tensor.shape[dim]
            return pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (missing, 0)) if missing else tensor

        for ours, theirs in zip(self._cache.layers, cache.layers, strict=True):
            ours.keys = torch.cat([widen(ours.keys, 2), widen(theirs.keys, 2)])
            ours.values = torch.cat([widen(ours.values, 2), widen(theirs.values, 2)])
        self._mask = torch.cat([widen(self._mask, 1), widen(mask, 1)])

    def _let_go(self) -> list[Row]:
        """Take the finished rows out, and the columns that only they needed."""
        done = [row for row in self.rows if row.is_done(self._ends)]
        if not done:
            return done
        keep = [i for i, row in enumerate(self.rows) if row not in done]
        self.rows = [self.rows[i] for i in keep]
        if not keep:
            self._cache = None
            return done
        chosen = torch.tensor(keep, device=self._mask.device)
        self._mask = self._mask[chosen]
        first = int(self._mask.any(0).int().argmax())
        self._mask = self._mask[:, first:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen, :, first:]
            layer.values = layer.values[chosen, :, first:]
        return done


def _draw(logits: torch.Tensor, row: Row) -> int:
    sampling = row.sampling
    if sampling.temperature <= 0:
        return int(logits.argmax())
    if row.generator is None:
        row.generator = torch.Generator(device=logits.device)
        row.generator.manual_seed(sampling.seed) if sampling.seed is not None else row.generator.seed()
    chances, order = (logits / sampling.temperature).softmax(-1).sort(descending=True)
    chances[chances.cumsum(-1) - chances >= sampling.top_p] = 0.0  # the first always stays
    return int(order[torch.multinomial(chances, 1, generator=row.generator)])


def _goes_in_circles(tokens: list[int]) -> bool:
    if len(tokens) < LOOP_TOKENS or len(tokens) % 8:
        return False
    tail = tokens[-LOOP_TOKENS:]
    return any(tail[period:] == tail[:-period] for period in range(1, LOOP_TOKENS // 3 + 1))
