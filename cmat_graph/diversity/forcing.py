"""Teacher forcing: what models that share one base say to given replies, in batches, one adapter after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from cmat_graph.adapters import WEIGHTS, AdapterCard
from cmat_graph.errors import AdapterMismatchError, AdapterNotFoundError, UnsupportedAdapterError
from cmat_graph.models.decoding.loading import load_base
from cmat_graph.tuning.encoding import encode_turn, to_ids
from cmat_graph.tuning.train.loss import base_of, only
from cmat_graph.tuning.train.methods import quiet_peft
from cmat_graph.types import Message

BARE = ""
"""The name of the base without an adapter."""
TOKENS = 1 << 13
"""Tokens of one batch, padding too."""
LOGITS = 1 << 25
"""Numbers in the logits of one batch: 128 MiB in float32."""
SLICE = 1 << 21
"""Numbers of the vocabulary's distributions that are compared at once."""
LORA = ("lora", "rslora", "dora", "qlora")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One reply in its chat, as tokens."""

    prompt_ids: list[int]
    reply_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.reply_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pieces of rows that are read together. A row whose logits would be too many comes in several pieces."""

    ids: torch.Tensor
    """B x S, padded behind."""
    mask: torch.Tensor
    at: torch.Tensor
    """B x S: the positions whose next token is scored."""
    labels: torch.Tensor
    """These next tokens, one after the other."""
    rows: torch.Tensor
    """To which row each of them belongs."""
    offsets: torch.Tensor
    """At which place of the reply each of them stands."""
    lines: torch.Tensor
    """B: which row each line holds."""


class Forcer:
    """One base in memory with the adapters of all agents.

    Args:
        base: `nano`, a model folder, or a hub id.
        cards: Adapters of the base by the name under which they are asked for.
        dtype: A torch dtype's name; float32 makes the figures exact.
        device: A torch device; None takes a GPU if there is one.

    Raises:
        ModelNotFoundError: There is no such base.
        AdapterMismatchError: An adapter is of another base.
        UnsupportedAdapterError: An adapter is no LoRA.
        AdapterNotFoundError: An adapter's files are not there, or cannot be read.

    """

    def __init__(
        self, base: str, cards: Mapping[str, AdapterCard], *, dtype: str | None = "float32", device: str | None = None
    ) -> None:
        loaded = load_base(base, dtype=dtype, device=device, quantize=None)
        self.base, self.tokenizer, self.window, self._ends = base, loaded.tokenizer, loaded.window, loaded.ends
        self._model: Any = loaded.model
        for name, card in cards.items():
            _check(card, base, loaded.hash)
            try:
                with quiet_peft():
                    if isinstance(self._model, PeftModel):
                        self._model.load_adapter(card.folder, adapter_name=name)
                    else:
                        self._model = PeftModel.from_pretrained(self._model, card.folder, adapter_name=name)
            except Exception as exc:  # a damaged file may fail anywhere in what reads it
                reason = (str(exc).strip() or type(exc).__name__).splitlines()[0]
                raise AdapterNotFoundError(
                    f"cannot load adapter {card.id} from {card.folder}: {reason}; restore its files"
                ) from exc
        self._model.eval()

    def encode(self, prompt: Sequence[Message], reply: Message) -> Row | None:
        """Render a reply in its chat as it was served; None where it is longer than the window."""
        turn = encode_turn(prompt, reply, self.tokenizer, ends=self._ends)
        row = Row(prompt_ids=turn.prompt_ids, reply_ids=turn.reply_ids)
        return row if len(row) <= self.window and row.prompt_ids and row.reply_ids else None

    def encode_text(self, text: str) -> Row:
        """Encode a text alone, as far as the window goes; one without tokens as the end of a text."""
        ids = to_ids(self.tokenizer, text)[: self.window]
        return Row(prompt_ids=[], reply_ids=ids or [min(self._ends)])

    def batches(self, rows: Sequence[Row], *, scored: bool = True) -> Iterator[Batch]:
        """Sort pieces of rows into batches of like length.

        Args:
            rows: What is read.
            scored: Whether logits are wanted, so that their number is bounded; else each row comes whole.

        """
        most = self.most if scored else max(map(len, rows), default=1) * len(rows)
        pieces = [
            (number, start, min(start + most, len(row.reply_ids)))
            for number, row in enumerate(rows)
            for start in range(0, len(row.reply_ids), most)
        ]
        pieces.sort(key=lambda piece: (len(rows[piece[0]].prompt_ids) + piece[2], piece))
        group: list[tuple[int, int, int]] = []
        longest = targets = 0
        for piece in pieces:
            size, wanted = len(rows[piece[0]].prompt_ids) + piece[2], piece[2] - piece[1]
            if group and (max(longest, size) * (len(group) + 1) > TOKENS or targets + wanted > most):
                yield self._lay_out(rows, group)
                group, longest, targets = [], 0, 0
            group.append(piece)
            longest, targets = max(longest, size), targets + wanted
        if group:
            yield self._lay_out(rows, group)

    def _lay_out(self, rows: Sequence[Row], pieces: Sequence[tuple[int, int, int]]) -> Batch:
        longest = max(len(rows[number].prompt_ids) + stop for number, _, stop in pieces)
        ids = torch.full((len(pieces), longest), int(self.tokenizer.pad_token_id or 0))
        mask, at = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        labels: list[int] = []
        owners: list[int] = []
        offsets: list[int] = []
        for line, (number, start, stop) in enumerate(pieces):
            row = rows[number]
            told = row.prompt_ids + row.reply_ids[:stop]
            ids[line, : len(told)] = torch.tensor(told)
            mask[line, : len(told)] = 1
            begin = len(row.prompt_ids) + start - 1
            at[line, max(begin, 0) : len(told) - 1] = True
            labels += row.reply_ids[start:stop]
            owners += [number] * (stop - start)
            offsets += range(start, stop)
        device = self.device
        return Batch(
            ids=ids.to(device),
            mask=mask.to(device),
            at=at.to(device),
            labels=torch.tensor(labels, device=device),
            rows=torch.tensor(owners, device=device),
            offsets=torch.tensor(offsets, device=device),
            lines=torch.tensor([number for number, _, _ in pieces], device=device),
        )

    @property
    def most(self) -> int:
        """How many tokens are scored at once."""
        return max(1, LOGITS // len(self.tokenizer))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = base_of(self._model).device
        return found

    @torch.no_grad()
    def logits(self, name: str, batch: Batch) -> torch.Tensor:
        """Return a model's logits for each scored token, their number x V.

        Args:
            name: An adapter's, or `BARE`.
            batch: What it reads.

        """
        with self._as(name), only(self._model, batch.at):
            found: torch.Tensor = self._model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits[0]
        return found

    @torch.no_grad()
    def states(self, batch: Batch) -> torch.Tensor:
        """Return the bare base's last hidden states, B x S x H."""
        with self._as(BARE), only(self._model, torch.zeros_like(batch.at)):
            told = self._model(
                input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, output_hidden_states=True
            )
        found: torch.Tensor = told.hidden_states[-1].float()
        return found

    @contextmanager
    def _as(self, name: str) -> Iterator[None]:
        if not isinstance(self._model, PeftModel):
            yield
        elif name == BARE:
            with self._model.disable_adapter():
                yield
        else:
            self._model.set_adapter(name, inference_mode=True)
            yield


def token_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return -log p of each label, T."""
    parts = [
        torch.nn.functional.cross_entropy(logits[part].float(), labels[part], reduction="none")
        for part in _slices(logits)
    ]
    return torch.cat(parts).double()


def token_kl(mine: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return KL(mine || other) over the vocabulary at each position, T; a slice of positions at a time.

    Args:
        mine: Logits, T x V.
        other: The same of the other model.

    """
    parts = []
    for part in _slices(mine):
        log_p = torch.log_softmax(mine[part].float(), dim=-1)
        log_q = torch.log_softmax(other[part].float(), dim=-1)
        parts.append((log_p.exp() * (log_p - log_q)).sum(dim=-1))
    return torch.cat(parts).double()


def _slices(logits: torch.Tensor) -> list[slice]:
    size = max(1, SLICE // logits.shape[1])
    return [slice(start, start + size) for start in range(0, max(1, len(logits)), size)]


def _check(card: AdapterCard, base: str, base_hash: str) -> None:
    if card.method not in LORA:
        raise UnsupportedAdapterError(
            f"{card.id} was trained with {card.method!r}; agents on one base are measured with {', '.join(LORA)}"
        )
    if card.base_hash and base_hash and card.base_hash != base_hash:
        raise AdapterMismatchError(f"{card.id} was trained on {card.base}, not on {base}; measure it on its own base")
    if not Path(card.folder, WEIGHTS).is_file():
        raise AdapterNotFoundError(f"adapter {card.id} has no {WEIGHTS} in {card.folder or 'any folder'}; restore it")
