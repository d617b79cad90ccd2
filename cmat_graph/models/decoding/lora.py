"""Many LoRA adapters in one forward: the rows of a batch are grouped by adapter, and two batched matrix products a
layer serve all groups.

PEFT's own mixed batch loops over the adapters in each layer; gathering each row's matrices copies them for every row.
Grouping the rows instead moves only activations, which are small, and reads each adapter's weights once.

DoRA (Liu et al. 2024) also sets the length of each row of W + s B A. What the lengths are is known once an adapter is
read, so it comes down to a product, its B scaled row by row, and a gain on what the layer itself puts out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Products = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""By module: A [rank, in] and B [out, rank], the scale already in B."""
Gains = dict[str, torch.Tensor]
"""By module: how much more of the layer's own output, without its bias, is put out [out]; DoRA's."""
Banks = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Of one layer, for all adapters: A [adapters, in, rank], B [adapters, rank, out], gains [adapters, out] or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterWeights:
    """An adapter in memory, of one of two kinds: products beside linear layers, or what stands before every prompt."""

    products: Products = field(default_factory=dict)
    """LoRA."""
    gains: Gains = field(default_factory=dict)
    """DoRA's, beside its products."""
    virtual: torch.Tensor | None = None
    """P-Tuning and prompt tuning: embeddings [tokens, hidden]; prefix tuning: [tokens, layers * 2 * width]."""
    is_past: bool = False
    """Whether `virtual` holds keys and values (prefix tuning) and not embeddings."""

    @property
    def rank(self) -> int:
        """The largest rank of its products."""
        return max((a.shape[0] for a, _ in self.products.values()), default=0)

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        tensors = [t for pair in self.products.values() for t in pair] + list(self.gains.values())
        tensors += [self.virtual] if self.virtual is not None else []
        return sum(t.numel() * t.element_size() for t in tensors)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows of this forward belong to which adapters."""

    rows: int
    tokens: int
    """Of each row."""
    slots: tuple[int, ...]
    """The adapters' places in the banks, ascending."""
    segments: tuple[tuple[int, int], ...] | None
    """First and last row of each adapter's group, where its rows lie together."""
    size: int
    """Rows in each group, the smaller ones filled up."""
    moves: tuple[torch.Tensor, torch.Tensor] | None
    """The row at each place of the groups, and the rows in which the places that are not filling end; None when the
    batch already lies like that."""
    kept: torch.Tensor | None
    """The places that are not filling; None when there is no filling."""


class Mixer:
    """The LoRA adapters of one model. Used by the engine's worker thread only."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers: dict[str, MixedLinear] = {}
        self._slots: list[str | None] = []
        self._ranks: dict[str, int] = {}
        self._gained: set[str] = set()
        self.plan: Plan | None = None

    def add(self, key: str, products: Products, gains: Gains | None = None) -> None:
        """Put an adapter into the banks, into the place of one that has left or at the end.

        Nothing has changed when memory runs out on the way.
        """
        modules = dict(self._model.named_modules())
        slot = self._slots.index(None) if None in self._slots else len(self._slots)
        rank = max(a.shape[0] for a, _ in products.values())
        count, rank_of_all = max(slot + 1, len(self._slots)), max([rank, *self._ranks.values()])
        layers = {
            name: self._layers.get(name) or MixedLinear(self, modules[name], self._model.dtype)
            for name in self._layers.keys() | products.keys()
        }
        gained = self._gained | ({key} if gains else set())
        banks = {name: layer.resized(count, rank_of_all, gained=bool(gained)) for name, layer in layers.items()}
        for name, (a, b, gain) in banks.items():
            a[slot], b[slot] = 0, 0
            if name in products:
                down, up = products[name]
                a[slot, :, : down.shape[0]] = down.T
                b[slot, : up.shape[1]] = up.T
            if gain is not None:
                gain[slot] = gains[name] if gains and name in gains else 0
        for name, layer in layers.items():
            layer.install(banks[name])
        self._layers, self._ranks[key], self._gained = layers, rank, gained
        self._slots[slot:] = [key, *self._slots[slot + 1 :]]

    def remove(self, key: str) -> None:
        """Free an adapter's place; the banks shrink where it was the last, or the one of the largest rank."""
        self._slots[self._slots.index(key)] = None
        del self._ranks[key]
        self._gained.discard(key)
        while self._slots and self._slots[-1] is None:
            self._slots.pop()
        if not self._slots:
            for layer in self._layers.values():
                layer.detach()
            self._layers = {}
        for layer in self._layers.values():
            layer.install(layer.resized(len(self._slots), max(self._ranks.values()), gained=bool(self._gained)))

    def __contains__(self, key: object) -> bool:
        return key in self._slots

    @property
    def keys(self) -> list[str]:
        """The adapters there are."""
        return [key for key in self._slots if key is not None]

    @property
    def bytes(self) -> int:
        """What the banks take in memory."""
        banks = [bank for layer in self._layers.values() for bank in layer.banks if bank is not None]
        return sum(bank.numel() * bank.element_size() for bank in banks)

    def choose(self, keys: Sequence[str], tokens: int) -> None:
        """Plan the next forward: the adapter of each row; a key without products, or "", is the bare base."""
        groups: dict[int, list[int]] = {}
        places = {key: slot for slot, key in enumerate(self._slots) if key is not None}
        for row, key in enumerate(keys):
            if (slot := places.get(key)) is not None:
                groups.setdefault(slot, []).append(row)
        if not groups:
            self.plan = None
            return
        slots = tuple(sorted(groups))
        size = max(map(len, groups.values()))
        order = [row for slot in slots for row in groups[slot]]
        together = all(rows[-1] - rows[0] + 1 == len(rows) for rows in groups.values())
        segments = tuple((groups[slot][0], groups[slot][-1] + 1) for slot in slots) if together else None
        if order == list(range(len(keys))) and len(order) == size * len(slots):
            self.plan = Plan(len(keys), tokens, slots, segments, size, None, None)
            return
        device = self._model.device
        filled = [(*groups[slot], *[groups[slot][0]] * (size - len(groups[slot]))) for slot in slots]
        take = torch.tensor([row for group in filled for row in group], device=device)
        kept = None
        if len(order) < size * len(slots):
            kept = torch.tensor(
                [g * size + i for g, s in enumerate(slots) for i in range(len(groups[s]))], device=device
            )
        self.plan = Plan(len(keys), tokens, slots, segments, size, (take, torch.tensor(order, device=device)), kept)


class MixedLinear:
    """A linear layer's forward with the products of its rows' adapters added."""

    def __init__(self, mixer: Mixer, module: Any, dtype: torch.dtype) -> None:
        self._mixer = mixer
        self._module = module
        self._base: Callable[[torch.Tensor], torch.Tensor] = module.forward
        outside, inside = shape_of(module)
        device = module.weight.device
        self.banks: Banks = (
            torch.zeros(0, inside, 0, dtype=dtype, device=device),
            torch.zeros(0, 0, outside, dtype=dtype, device=device),
            None,
        )
        self._picked: tuple[tuple[int, ...], Banks] | None = None

    def resized(self, count: int, rank: int, *, gained: bool) -> Banks:
        """Return the banks for `count` adapters of `rank`, with gains or without: these, or others that hold them."""
        a, b, gain = self.banks
        old = a.shape[0]
        if (old, a.shape[2]) != (count, rank):
            slots, ranks = min(count, old), min(rank, a.shape[2])
            a, b = a.new_zeros(count, a.shape[1], rank), b.new_zeros(count, rank, b.shape[2])
            a[:slots, :, :ranks] = self.banks[0][:slots, :, :ranks]
            b[:slots, :ranks] = self.banks[1][:slots, :ranks]
        if not gained:
            return a, b, None
        if gain is None or gain.shape[0] != count:
            gain = b.new_zeros(count, b.shape[2])
            if self.banks[2] is not None:
                slots = min(count, old)
                gain[:slots] = self.banks[2][:slots]
        return a, b, gain

    def install(self, banks: Banks) -> None:
        """Use these banks from now on."""
        self.banks, self._picked = banks, None
        self._module.forward = self

    def detach(self) -> None:
        """Leave the module as it was."""
        del self._module.forward

    def _chosen(self, slots: tuple[int, ...]) -> Banks:
        first, last = slots[0], slots[-1]
        a, b, gain = self.banks
        if last - first + 1 == len(slots):
            return a[first : last + 1], b[first : last + 1], None if gain is None else gain[first : last + 1]
        if self._picked is None or self._picked[0] != slots:
            index = torch.tensor(slots, device=a.device)
            self._picked = (slots, (a[index], b[index], None if gain is None else gain[index]))
        return self._picked[1]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for [rows, tokens, in], each row with its adapter's change."""
        y = self._base(x)
        plan = self._mixer.plan
        if plan is None:
            return y
        if x.ndim == 2 and x.shape[0] == plan.rows * plan.tokens:  # some models flatten rows and tokens into one
            rowwise = (plan.rows, plan.tokens)
            return self._added(x.view(*rowwise, -1), y.view(*rowwise, -1), plan).view(y.shape)
        if x.ndim != 3 or x.shape[0] != plan.rows:
            raise ValueError(f"an adapter changes a layer that sees {tuple(x.shape)}, not one row of tokens a request")
        return self._added(x, y, plan)

    def _added(self, x: torch.Tensor, y: torch.Tensor, plan: Plan) -> torch.Tensor:
        a, b, gain = self._chosen(plan.slots)
        groups, width = len(plan.slots), b.shape[2]
        if plan.segments is not None and (groups == 1 or plan.tokens > 1):  # whole prompts: copying them costs most
            for group, (first, last) in enumerate(plan.segments):
                change = x[first:last].reshape(-1, x.shape[-1]) @ a[group]
                own = y[first:last].view(-1, width)
                if gain is not None:
                    own += self._without_bias(own) * gain[group]
                own.addmm_(change, b[group])
            return y
        if plan.moves is None:
            h = torch.bmm(x.reshape(groups, -1, x.shape[-1]), a)
            own = y.view(groups, -1, width)
            if gain is not None:
                own += self._without_bias(own) * gain[:, None]
            return own.baddbmm_(h, b).view(y.shape)
        take, put = plan.moves
        rows = x.index_select(0, take).view(groups, -1, x.shape[-1])
        change = torch.bmm(torch.bmm(rows, a), b).view(groups * plan.size, *y.shape[1:])
        if gain is not None:
            own = self._without_bias(y.index_select(0, take)).view(groups, -1, width)
            change += (own * gain[:, None]).view(change.shape)
        if plan.kept is not None:
            change = change.index_select(0, plan.kept)
        return y.index_add_(0, put, change)

    def _without_bias(self, y: torch.Tensor) -> torch.Tensor:
        bias = getattr(self._module, "bias", None)
        return y if bias is None else y - bias


def shape_of(module: Any) -> tuple[int, int]:
    """Return the outgoing and incoming width of a linear layer, also of GPT-2's kind; zeros for other modules."""
    if hasattr(module, "nf"):
        return module.nf, module.nx
    return getattr(module, "out_features", 0), getattr(module, "in_features", 0)
