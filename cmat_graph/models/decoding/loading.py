"""Load a base model and its tokenizer: from disk or the hub's cache, never a pickle, never running its code."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from cmat_graph.bases import hash_base, is_small, resolve_base
from cmat_graph.errors import ConfigurationError, ModelNotFoundError

STRETCHING = {"dynamic", "longrope"}
QUANTIZED = ("int8", "4bit")


class Base(NamedTuple):
    """A base in memory."""

    model: Any
    tokenizer: Any
    hash: str
    window: int
    is_small: bool
    """Whether it is so small, on a CPU, that one thread serves it fastest."""
    mixes_lengths: bool
    """Whether a row's positions mean the same beside longer rows; not so with ropes that stretch with the length."""
    column_bytes: int
    """What one token's keys and values take."""
    ends: frozenset[int]


def load_base(base: str, *, dtype: str | None, device: str | None, quantize: str | None) -> Base:
    """Load a base.

    Args:
        base: `nano`, a model folder, or a hub id.
        dtype: A torch dtype name; None takes the model's own on a GPU, on a CPU bfloat16 where it has instructions
            for it and else float32, which is faster there. A small model is float32 on every CPU: bfloat16 saves it
            little, and with it what a seeded agent says depends on what stands beside it in the batch.
        device: A torch device; None takes the GPU if there is one.
        quantize: `int8` or `4bit`, on a GPU with bitsandbytes.

    Raises:
        ModelNotFoundError: There is no such model, or it cannot be loaded.
        ConfigurationError: The settings cannot work here.

    """
    location = resolve_base(base)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_cpu = torch.device(device).type == "cpu"
    numbers = _dtype(dtype, on_cpu=on_cpu)
    settings: dict[str, Any] = {"use_safetensors": True}
    if quantize is not None:
        settings["quantization_config"] = _quantization(quantize, on_cpu=on_cpu)
        settings["device_map"] = {"": device}
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(location)
        small = on_cpu and is_small(location)
        if small and dtype is None:
            numbers = torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(location, dtype=numbers, **settings)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        raise ModelNotFoundError(f"cannot load base {base!r}: {_reason(exc, location)}") from exc
    if quantize is None:
        model = model.to(device)
    if tokenizer.chat_template is None:
        raise ModelNotFoundError(f"base {base!r} has no chat template; take an instruction-tuned model")
    model.eval().requires_grad_(False)
    if on_cpu and model.dtype == torch.float32:
        _lay_out(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = model.config.get_text_config(decoder=True)
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    return Base(
        model=model,
        tokenizer=tokenizer,
        hash=hash_base(location),
        window=int(getattr(config, "max_position_embeddings", 0) or 4096),
        is_small=small,
        mixes_lengths=not STRETCHING & _ropes(getattr(config, "rope_parameters", None)),
        column_bytes=_column_bytes(config) * model.dtype.itemsize,
        ends=frozenset([ends] if isinstance(ends, int) else ends or ()),
    )


def _lay_out(model: Any) -> None:
    """Store linear weights by columns: MKL multiplies a batch of a few rows with them a third faster so."""
    tied = model.get_input_embeddings().weight
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not tied:
            module.weight.data = module.weight.data.t().contiguous().t()


def _ropes(parameters: Any) -> set[str]:
    """Return the kinds of rotary positions of a model; models with several kinds of layers have one for each."""
    if not isinstance(parameters, dict):
        return set()
    return {str(parameters.get("rope_type"))}.union(*(_ropes(each) for each in parameters.values()))


def _column_bytes(config: Any) -> int:
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers * 2 * heads * width)


def _dtype(name: str | None, *, on_cpu: bool) -> Any:
    if name is not None:
        dtype = getattr(torch, name.removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ConfigurationError(f"{name!r} is no dtype for a model; take float32, bfloat16 or float16")
        return dtype
    if not on_cpu:
        return "auto"
    return (
        torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else torch.float32
    )


def _quantization(kind: str, *, on_cpu: bool) -> Any:
    if kind not in QUANTIZED:
        raise ConfigurationError(f"{kind!r} is no quantisation; take one of {', '.join(QUANTIZED)}")
    if on_cpu:
        raise ConfigurationError(f"{kind} needs a GPU; leave quantize out on a CPU")
    if find_spec("bitsandbytes") is None:
        raise ConfigurationError(f"{kind} needs bitsandbytes; fix: pip install bitsandbytes")
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _reason(exc: Exception, location: str) -> str:
    """Word a failure, with its fix."""
    if os.path.isdir(location) and not list(Path(location).glob("*.safetensors")):
        if pickled := [p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in Path(location).glob(pattern)]:
            return f"its weights are a pickle ({pickled[0]}), which can run code and is never loaded; save safetensors"
        return "there are no safetensors weights in the folder; restore them"
    first = (str(exc).strip() or type(exc).__name__).splitlines()[0]
    return f"{first}; give a folder that holds it"
