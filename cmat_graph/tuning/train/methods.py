"""What of a base is trained: a PEFT adapter of some kind, or every weight."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from safetensors import SafetensorError
from transformers import set_seed

from cmat_graph.errors import ConfigurationError, ModelNotFoundError
from cmat_graph.tuning.settings import Method, TrainSettings

LORA: tuple[Method, ...] = ("lora", "rslora", "dora", "qlora")
VIRTUAL: tuple[Method, ...] = ("p-tuning", "prefix")
"""Methods that put trained vectors before the prompt, which take room in the window."""


def virtual_tokens(settings: TrainSettings) -> int:
    """Return how many tokens of the window a method takes for itself."""
    return settings.virtual_tokens if settings.method in VIRTUAL else 0


def longest(model: Any, settings: TrainSettings) -> int:
    """Return how many tokens a row may have: the settings' limit, or what the base's window leaves."""
    window = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return min(settings.max_length, window - virtual_tokens(settings)) if window else settings.max_length


def adapter_config(settings: TrainSettings, model: Any) -> PeftConfig | None:
    """Return PEFT's configuration of a method; None for `full`.

    `lora` is F13 (h = W x + alpha/r B A x on every linear layer but the head), `rslora` scales by alpha/sqrt(r), `dora`
    trains each row's length beside it, `qlora` is `lora` on a 4-bit base. `p-tuning` is F14: vectors that a small
    network makes stand before the prompt's embeddings; `prefix` trains keys and values before every layer's own.

    Args:
        settings: How to train.
        model: The base; its width is that of the small network.

    """
    if settings.method == "full":
        return None
    if settings.method in LORA:
        return LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules="all-linear",
            use_rslora=settings.method == "rslora",
            use_dora=settings.method == "dora",
            task_type="CAUSAL_LM",
        )
    if settings.method == "p-tuning":
        width = model.get_input_embeddings().weight.shape[1]
        return PromptEncoderConfig(
            num_virtual_tokens=settings.virtual_tokens,
            encoder_hidden_size=width,
            encoder_dropout=settings.dropout,
            task_type="CAUSAL_LM",
        )
    return PrefixTuningConfig(num_virtual_tokens=settings.virtual_tokens, task_type="CAUSAL_LM")


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep what only PEFT's authors can mend from users: 0.21 calls a property of transformers by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        yield


def wrap(model: Any, settings: TrainSettings, init: Path | None = None) -> Any:
    """Put what is trained around a base.

    Args:
        model: The base.
        settings: How to train; the seed decides with which numbers an adapter begins.
        init: An adapter's folder to go on from; None begins anew. A `full` model is begun by loading it as the base.

    Raises:
        ModelNotFoundError: The folder to go on from holds no adapter for this base.
        ConfigurationError: It holds an adapter of another method.

    """
    set_seed(settings.seed)
    config = adapter_config(settings, model)
    if config is None:
        return model.requires_grad_(True)
    with quiet_peft():
        if init is None:
            return get_peft_model(model, config)
        try:
            wrapped = PeftModel.from_pretrained(model, str(init), is_trainable=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
            raise ModelNotFoundError(f"cannot go on from the adapter in {init}: {str(exc).splitlines()[0]}") from exc
    found = wrapped.peft_config["default"]
    if type(found) is not type(config) or getattr(found, "use_dora", None) != getattr(config, "use_dora", None):
        raise ConfigurationError(
            f"{init} holds an adapter of kind {found.peft_type.value}, not of method {settings.method}; "
            "go on with the method it was trained by, or begin anew"
        )
    return wrapped


def begin_with_words(model: Any, ids: Sequence[int]) -> None:
    """Let a prefix begin as the keys and values of real tokens (Li and Liang 2021, section 7.4).

    PEFT draws them from a normal distribution, far from any that a model makes: what it could do is lost at first.

    Args:
        model: A base wrapped for `prefix`.
        ids: Tokens of a prompt; they are repeated up to the prefix's length.

    """
    table = model.prompt_encoder[model.active_adapter].embedding.weight
    words = torch.tensor([(list(ids) * -(-table.shape[0] // len(ids)))[: table.shape[0]]], device=table.device)
    with torch.no_grad(), model.disable_adapter():
        layers = model.get_base_model()(input_ids=words, use_cache=True).past_key_values.layers
        past = torch.stack([part[0] for layer in layers for part in (layer.keys, layer.values)])
        begun = past.permute(2, 0, 1, 3).reshape(table.shape[0], -1)  # [tokens, layers * 2 * heads * width]
        if begun.shape == table.shape:  # layers of several shapes keep PEFT's beginning
            table.copy_(begun)
