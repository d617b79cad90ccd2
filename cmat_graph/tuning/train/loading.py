"""Load the base that is trained, with its tokenizer, in the numbers it is trained in."""

from __future__ import annotations

from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from cmat_graph.bases import is_small
from cmat_graph.errors import ModelNotFoundError
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train.processes import local_rank


def compute_dtype(settings: TrainSettings, location: str) -> torch.dtype:
    """Return the numbers that a base is multiplied in: bfloat16 where that is faster, unless the settings say.

    A small base is faster in float32 on every CPU, also on those with instructions for bfloat16.
    """
    if settings.dtype != "auto":
        return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast and not is_small(location) else torch.float32


def load_tokenizer(location: str) -> Any:
    """Load a base's tokenizer.

    Raises:
        ModelNotFoundError: There is none, or it has no chat template.

    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(location)
    except (OSError, ValueError, KeyError) as exc:
        raise ModelNotFoundError(f"cannot load the tokenizer of base {location!r}: {_first_line(exc)}") from exc
    if tokenizer.chat_template is None:
        raise ModelNotFoundError(f"base {location!r} has no chat template; take an instruction-tuned model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(location: str, settings: TrainSettings) -> Any:
    """Load a base for training.

    An adapter's frozen base is held in what is computed in; trained weights themselves (`full`) are float32, since
    steps are smaller than bfloat16 can tell apart.

    Args:
        location: A folder or a hub id, as `from_pretrained` takes it.
        settings: Its method and dtype.

    Raises:
        ModelNotFoundError: There is no such model, its files are damaged, or a download broke off.

    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        numbers = compute_dtype(settings, location)
        options: dict[str, Any] = {}
        if settings.method == "qlora":
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=numbers,
            )
            options["device_map"] = {"": local_rank()}
        held = torch.float32 if settings.method == "full" else numbers
        model: Any = AutoModelForCausalLM.from_pretrained(location, dtype=held, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        raise ModelNotFoundError(
            f"cannot load base {location!r}: {_first_line(exc)}; if a download broke off, load it again"
        ) from exc
    if settings.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model.config.use_cache = False
    return model


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
