"""The weighted loss of one chunk of rows, and how much of a model it takes: the head at targets, beginnings once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

STRETCHING = {"dynamic", "longrope"}
"""Ropes by which a position means something else in a longer row."""
CPU_BYTES = 384 << 20
"""Activations of one chunk on a CPU, about: whatever the batch, a small model then takes less than with TRL."""
LEAST, MOST = 512, 65_536
"""Tokens of a chunk, whatever memory there is."""


def weighted_nll(model: Any, inner: Any, chunk: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return sum_i w_i * -log p_i over the targets of one chunk.

    Args:
        model: As it is trained, such as in DDP's wrapper.
        inner: The same without wrappers of processes.
        chunk: `prefix` (1 x P), and `ids`, `labels`, `weights` (N x S), as `Planner` lays them out.

    """
    prefix, ids, weights = chunk["prefix"], chunk["ids"], chunk["weights"]
    at = weights > 0
    given: dict[str, Any] = {"use_cache": False}
    if prefix.shape[1]:
        cache = DynamicCache(config=base_of(inner).config)
        with only(inner, torch.zeros_like(prefix, dtype=torch.bool)):
            inner(input_ids=prefix, past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(ids), -1, -1, -1)
            layer.values = layer.values.expand(len(ids), -1, -1, -1)
        given = {"past_key_values": cache, "use_cache": True}
    with only(inner, at):
        logits = model(input_ids=ids, **given).logits
    losses = functional.cross_entropy(logits[0].float(), chunk["labels"][at], reduction="none")
    total: torch.Tensor = (losses * weights[at]).sum()
    return total


@contextmanager
def only(model: Any, at: torch.Tensor) -> Iterator[None]:
    """Let the head of a language model see some positions only; its logits are then of shape 1 x their number.

    Whatever a model does with logits afterwards, such as capping them, it does to these. Vectors in front of the
    row, as P-Tuning's, are left out.
    """

    def choose(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = args[0]
        return (hidden[:, hidden.shape[1] - at.shape[1] :][at][None], *args[1:])

    hook = base_of(model).get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()


def base_of(model: Any) -> Any:
    """Return the transformers model in a PEFT model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def can_share(model: Any) -> bool:
    """Tell whether rows may go on from one common beginning with the gradient of whole rows.

    Not with dropout, by which each row drops others, nor with trained prefixes, which are keys and values themselves;
    nor where layers keep less than all keys, or positions stretch with the length.
    """
    base = base_of(model)
    config = base.config.get_text_config(decoder=True)
    if any(getattr(each, "is_prompt_learning", False) for each in getattr(model, "peft_config", {}).values()):
        return False
    if any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in base.modules()):
        return False
    if getattr(config, "attention_dropout", 0.0) or _ropes(getattr(config, "rope_parameters", None)) & STRETCHING:
        return False
    if getattr(base, "_is_stateful", False) or getattr(base, "is_gradient_checkpointing", False):
        return False
    kinds = {type(layer).__name__ for layer in DynamicCache(config=base.config).layers}
    return kinds == {"DynamicLayer"}


def token_budget(base: Any) -> int:
    """Return how many tokens' activations may be held at once: few on a CPU, half of what a GPU has free."""
    weight = next(base.parameters())
    config = base.config.get_text_config(decoder=True)
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    on_gpu = weight.device.type == "cuda"
    # What autograd keeps of one token in a layer: about 18 widths, and 6 inner widths.
    token = (2 if on_gpu else 4) * config.num_hidden_layers * (18 * config.hidden_size + 6 * inner)
    free = torch.cuda.mem_get_info(weight.device)[0] // 2 if on_gpu else CPU_BYTES
    return int(min(max(free // token, LEAST), MOST))


def _ropes(parameters: Any) -> set[str]:
    if not isinstance(parameters, dict):
        return set()
    return {str(parameters.get("rope_type"))}.union(*(_ropes(each) for each in parameters.values()))
