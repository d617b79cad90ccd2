"""Rows that decode together, whatever their adapters: they join and leave at step boundaries, so that no reply waits
for a longer one.

Row i lives in slot i of the cache. The first ones decode, one token a step; those behind them are being filled: their
prompts are read in pieces, so that a long one does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cmat_graph.errors import ModelNotFoundError
from cmat_graph.models.decoding.lora import AdapterWeights, Mixer
from cmat_graph.models.decoding.prefixes import LEAST, Prefixes, common
from cmat_graph.models.decoding.rows import Row
from cmat_graph.models.decoding.sampling import draw
from cmat_graph.models.decoding.slots import Memory, SlotCache
from cmat_graph.models.decoding.views import Views

FILL_TOKENS = 4096
"""Prompt tokens read in one forward, padding included."""
PIECE = 1024
"""Of one prompt at most this many."""
PAD_TO = 8
UNEVEN = 1.3
"""Prompts are read together while the longest is at most this many times the shortest."""


class Batch:
    """The rows in flight on one model. Used by the engine's worker thread only."""

    def __init__(self, model: Any, prefixes: Prefixes, *, pad_token: int, ends: frozenset[int]) -> None:
        self._model = model
        self._mixer = Mixer(model)
        self._prefixes = prefixes
        self._views = Views(model)
        self._pad_token = pad_token
        self._ends = ends
        self._decoding = 0
        self.cache = SlotCache()
        self.rows: list[Row] = []
        self._virtual: dict[str, tuple[int, Memory]] = {}
        """What stands before every prompt of an adapter (P-Tuning, prefix tuning), and its tokens."""
        self.fill_rows = 1 << 30
        """Prompts read in one forward at most; less after memory ran out."""
        self.piece = PIECE
        """Tokens read of one prompt at once; less after memory ran out."""

    # -- coming and going ---------------------------------------------------------------------------------------

    def join(self, row: Row) -> None:
        """Give a row a slot, and what is known of its prompt."""
        slot = len(self.rows)
        before, memory = self._virtual.get(row.adapter, (0, None))
        self.cache.reserve(slot + 1, before + row.length + 1)
        most = row.length - 1  # the last one has to be computed: what follows it is asked for
        entry, shared = self._prefixes.find(row.adapter, row.ids)
        living, shared_living = self._living(row)
        row.filled = 0
        if living is not None and min(shared_living, most) >= max(LEAST, shared):
            row.filled = min(shared_living, most)
            self.cache.copy_slot(living, slot, before + row.filled)
        elif entry is not None and min(shared, most) >= LEAST:
            row.filled = min(shared, most)
            self.cache.load(slot, entry.memory, before + row.filled)
        elif memory is not None:
            self.cache.load(slot, memory, before)
        row.cached = max(row.cached, min(row.filled, len(row.prompt)))
        self.rows.append(row)

    def _living(self, row: Row) -> tuple[int | None, int]:
        """Return the slot whose row begins like this one for longest, and for how many tokens."""
        best, most = None, 0
        for slot, other in enumerate(self.rows):
            if other.adapter == row.adapter and other.filled > most:
                shared = min(common(other.ids, row.ids), other.filled)
                if shared > most:
                    best, most = slot, shared
        return best, most

    def would_share(self, row: Row) -> bool:
        """Tell whether a row that is just being filled will soon save this one much work."""
        for other in self.rows[self._decoding :]:
            if other.adapter == row.adapter:
                shared = common(other.ids, row.ids)
                if shared >= other.filled + LEAST and shared >= len(row.prompt) // 2:
                    return True
        return False

    def leave(self, row: Row, *, keep: bool = True) -> None:
        """Take a row out; what the model made of its tokens is kept for those that begin alike."""
        slot = self.rows.index(row)
        if row.error is not None or not row.tokens:  # only what has led to a token is known to hold numbers
            self.cache.clear(slot)
        elif keep and row.filled >= LEAST and self._prefixes.budget:
            self._keep(row, slot)
        if slot < self._decoding:
            self._decoding -= 1
            self._move(self._decoding, slot)
            slot = self._decoding
        self._move(len(self.rows) - 1, slot)
        self.rows.pop()

    def _keep(self, row: Row, slot: int) -> None:
        try:
            memory = self.cache.save(slot, self._before(row) + row.filled)
        except (RuntimeError, MemoryError):  # no memory for a copy: better none than no reply
            self.forget()
        else:
            self._prefixes.keep(row.adapter, row.known, memory)

    def forget(self) -> None:
        """Give back the memory of what earlier requests left behind."""
        self._prefixes.clear()

    def clear(self) -> None:
        """Take all rows out and give their memory back."""
        self.rows, self._decoding = [], 0
        self.cache.release()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            row = self.rows[source]
            self.cache.copy_slot(source, target, self._before(row) + row.filled)
            self.rows[target] = row

    def _before(self, row: Row) -> int:
        return self._virtual[row.adapter][0] if row.adapter in self._virtual else 0

    # -- going on -----------------------------------------------------------------------------------------------

    @property
    def is_filling(self) -> bool:
        """Whether prompts are left to read."""
        return self._decoding < len(self.rows)

    @property
    def is_decoding(self) -> bool:
        """Whether rows wait for their next token."""
        return self._decoding > 0

    def next_fill(self) -> list[Row]:
        """Choose whose prompts are read next: the first that came, and others about as long."""
        waiting = self.rows[self._decoding :]
        size = {id(row): min(row.length - row.filled, self.piece) for row in waiting}
        first = size[id(waiting[0])]
        chosen = [row for row in waiting if max(size[id(row)], first) <= UNEVEN * min(size[id(row)], first) + PAD_TO]
        longest = max(size[id(row)] for row in chosen)
        chosen = chosen[: max(1, min(self.fill_rows, FILL_TOKENS // longest))]
        return sorted(chosen, key=lambda row: row.adapter)  # so that each adapter's prompts lie together

    def fill(self, chosen: Sequence[Row]) -> None:
        """Read the next piece of some rows' prompts; those that are through draw their first token."""
        slots = [self.rows.index(row) for row in chosen]
        pieces = [row.context[row.filled : row.filled + self.piece] for row in chosen]
        width = -(-max(map(len, pieces)) // PAD_TO) * PAD_TO if max(map(len, pieces)) > 1 else 1
        ids = np.full((len(chosen), width), self._pad_token, dtype=np.int64)
        columns = np.full((len(chosen), width), -1, dtype=np.int64)
        for i, (row, piece) in enumerate(zip(chosen, pieces, strict=True)):
            ids[i, width - len(piece) :] = piece
            begin = self._before(row) + row.filled
            columns[i, width - len(piece) :] = np.arange(begin, begin + len(piece))
        logits = self._forward([row.adapter for row in chosen], slots, ids, columns)
        ends = [row.filled + len(piece) for row, piece in zip(chosen, pieces, strict=True)]
        through = [i for i, row in enumerate(chosen) if ends[i] == row.length]
        drawn = draw(logits[through], [chosen[i] for i in through]) if through else ([], [])
        for row, end in zip(chosen, ends, strict=True):  # nothing above has changed a row: it may run out of memory
            row.filled = end
        self._add([chosen[i] for i in through], *drawn)
        for i in through:
            self._to_decoding(chosen[i])

    def step(self) -> None:
        """Draw one token for each row that decodes."""
        rows = self.rows[: self._decoding]
        columns = np.array([[self._before(row) + row.filled] for row in rows])
        ids = np.array([[row.tokens[-1]] for row in rows])
        drawn = draw(self._forward([row.adapter for row in rows], range(len(rows)), ids, columns), rows)
        for row in rows:
            row.filled += 1
        self._add(rows, *drawn)

    def done(self) -> list[Row]:
        """Return the rows that have ended."""
        return [row for row in self.rows[: self._decoding] if row.finish_reason]

    def _add(self, rows: Sequence[Row], tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            if logprob != logprob and row.error is None:
                row.fail(
                    ValueError(
                        "the model's logits are not numbers; its weights are damaged, or too large for the dtype"
                    )
                )
            if row.error is None:
                row.add(token, logprob, self._ends)

    def _to_decoding(self, row: Row) -> None:
        slot, target = self.rows.index(row), self._decoding
        if slot != target:
            other = self.rows[target]
            longest = max(self._before(row) + row.filled, self._before(other) + other.filled)
            self.cache.swap(slot, target, longest)
            self.rows[target], self.rows[slot] = row, other
        self._decoding += 1

    def check(self) -> None:
        """See that this batch computes for a model what the model does alone.

        Raises:
            ModelNotFoundError: It does not: positions or attention of a kind that rows of several lengths cannot share.

        """
        size = self._model.get_input_embeddings().weight.shape[0]
        tokens = np.arange(3, 16, dtype=np.int64) % size
        try:
            alone = [self._alone(tokens[:length]) for length in (7, 12, 8, 13)]
            ids, columns = np.stack([np.roll(tokens[:12], 5), tokens[:12]]), np.stack([np.arange(-5, 7), np.arange(12)])
            columns[columns < 0] = -1
            together = [*self._forward(["", ""], [0, 1], ids, columns)]
            together += self._forward(["", ""], [0, 1], tokens[[7, 12], None], np.array([[7], [12]]))
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as exc:
            raise self._refused(f"{type(exc).__name__}: {exc}") from exc
        finally:
            self.cache.release()
        slack = 0.01 if self._model.dtype == torch.float32 else 0.3
        for one, other in zip(alone, together, strict=True):
            if not (one - other).abs().max() <= slack * one.std():
                raise self._refused("rows of several lengths change each other")

    def _alone(self, tokens: Any) -> torch.Tensor:
        ids = torch.from_numpy(tokens[None]).to(self._model.device)
        logits: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits[0, -1]
        return logits

    def _refused(self, reason: str) -> ModelNotFoundError:
        kind = self._model.config.model_type
        return ModelNotFoundError(
            f"the engine cannot batch models of kind {kind!r} ({reason}); take one with rotary positions and "
            "plain attention, or serve this one with vLLM"
        )

    def _forward(self, adapters: Sequence[str], slots: Sequence[int], ids: Any, columns: Any) -> torch.Tensor:
        """Run the model over tokens at columns of slots; return the logits of each row's last token."""
        extent = int(columns.max()) + 1
        self.cache.reserve(max(slots) + 1, extent)
        device = self._model.device
        together = slots[-1] - slots[0] + 1 == len(slots) and list(slots) == list(range(slots[0], slots[-1] + 1))
        index = torch.tensor(slots, device=device)
        seen = torch.from_numpy(np.maximum(columns, 0)).to(device)
        into = np.where(columns < 0, self.cache.columns, columns)
        self.cache.aim(
            slice(slots[0], slots[-1] + 1) if together else index, index, torch.from_numpy(into).to(device), extent
        )
        self._mixer.choose(adapters, ids.shape[1])
        out = self._model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=self._views.of(seen, extent),
            position_ids=seen,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def add_adapter(self, key: str, weights: AdapterWeights) -> None:
        """Have an adapter ready."""
        if weights.virtual is None:
            self._mixer.add(key, weights.products, weights.gains)
        else:
            self._add_virtual(key, weights.virtual, is_past=weights.is_past)

    @property
    def adapter_bytes(self) -> int:
        """What all adapters take in memory."""
        virtual = [t for _, memory in self._virtual.values() for pair in memory.values() for t in pair]
        return self._mixer.bytes + sum(t.numel() * t.element_size() for t in virtual)

    def remove_adapter(self, key: str) -> None:
        """Give an adapter's memory back."""
        if key in self._mixer:
            self._mixer.remove(key)
        self._virtual.pop(key, None)

    def _add_virtual(self, adapter: str, virtual: torch.Tensor, *, is_past: bool) -> None:
        """Compute once what stands before every prompt of an adapter: P-Tuning's embeddings, or keys and values."""
        config = self._model.config
        count = virtual.shape[0]
        virtual = virtual.to(self._model.device, self._model.dtype)
        if is_past:
            layers = config.num_hidden_layers
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            past = virtual.view(count, layers * 2, heads, -1).permute(1, 2, 0, 3)
            self._virtual[adapter] = (count, {i: (past[2 * i], past[2 * i + 1]) for i in range(layers)})
            return
        cache, columns = SlotCache(), torch.arange(count, device=self._model.device)[None]
        cache.reserve(1, count)
        cache.aim(slice(0, 1), torch.zeros(1, dtype=torch.long, device=columns.device), columns, count)
        self._mixer.choose([""], count)
        self._model(
            inputs_embeds=virtual[None],
            attention_mask=self._views.of(columns, count),
            position_ids=columns,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._virtual[adapter] = (count, cache.save(0, count))
