"""Read an adapter folder for the engine: what PEFT wrote, checked before any of it touches the model."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load as parse_safetensors

from cmat_graph.adapters import CONFIG, WEIGHTS, AdapterCard
from cmat_graph.errors import AdapterMismatchError, AdapterNotFoundError, UnsupportedAdapterError
from cmat_graph.models.decoding.lora import AdapterWeights, Gains, Products, shape_of

PLAIN = (
    "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "trainable_token_indices",
    "modules_to_save", "target_parameters", "alora_invocation_tokens", "kasa_config", "arrow_config",
    "monteclora_config", "velora_config",
)  # fmt: skip
"""LoRA settings that change more than the product of two matrices; the engine runs adapters without them."""
PREFIX = "base_model.model."
LENGTH = "lora_magnitude_vector"
"""What PEFT calls DoRA's trained lengths."""


def read_adapter(card: AdapterCard, model: Any, *, weights_hash: str, max_rank: int) -> AdapterWeights:
    """Read and check an adapter for a model.

    Args:
        card: The adapter.
        model: The base it is to run on; gives names, shapes and dtype of the layers.
        weights_hash: SHA-256 that the weights must have.
        max_rank: Largest rank taken.

    Raises:
        AdapterNotFoundError: Files are missing, cut, damaged, or not those of the card any more.
        AdapterMismatchError: Its layers are not those of the model.
        UnsupportedAdapterError: A kind or a size that the engine does not run.

    """
    folder = Path(card.folder)
    file = folder / WEIGHTS
    if card.is_full:
        raise UnsupportedAdapterError(f"{card.id} is a whole model, no adapter; open it with TinyAgent.load(card)")
    if not file.is_file():
        pickled = next((p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern)), None)
        if pickled:
            raise UnsupportedAdapterError(
                f"adapter {card.id} has its weights in {pickled}, a pickle, which can run code and is never loaded; "
                f"save it with PEFT's save_pretrained, which writes {WEIGHTS}"
            )
        raise AdapterNotFoundError(f"adapter {card.id} has no {WEIGHTS} in {folder}; restore or remove the folder")
    try:
        blob, settings = file.read_bytes(), Path(folder, CONFIG).read_bytes()
        config = PeftConfig.from_pretrained(str(folder))
        tensors = parse_safetensors(blob)
        kind = str(getattr(config.peft_type, "value", config.peft_type))
    except Exception as exc:  # a damaged file may fail anywhere in what reads it
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        raise AdapterNotFoundError(f"cannot load adapter {card.id} from {folder}: {reason}; restore its files") from exc
    if hashlib.sha256(blob + settings).hexdigest() != weights_hash:
        raise AdapterNotFoundError(f"the weights of adapter {card.id} in {folder} have changed; load the adapter anew")
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16) or not tensor.numel():
            raise UnsupportedAdapterError(
                f"adapter {card.id} has {name} as {tensor.dtype} {list(tensor.shape)}; save it in float32 or bfloat16"
            )
        if not torch.isfinite(tensor).all():
            raise UnsupportedAdapterError(
                f"adapter {card.id} holds numbers that are not finite in {name}; train it anew"
            )
    try:
        if kind == "LORA":
            products = _products(card, config, tensors, model, max_rank)
            lengths = {name: tensor for name, tensor in tensors.items() if _is_length(name)}
            if not config.use_dora:
                return AdapterWeights(products=products)
            products, gains = _set_lengths(card, products, lengths, model)
            return AdapterWeights(products=products, gains=gains)
        if kind in ("P_TUNING", "PROMPT_TUNING", "PREFIX_TUNING"):
            return _virtual(card, tensors, model, is_past=kind == "PREFIX_TUNING")
    except (TypeError, AttributeError, ArithmeticError) as exc:
        raise AdapterNotFoundError(
            f"the settings of adapter {card.id} make no sense: {exc}; restore its files"
        ) from exc
    raise UnsupportedAdapterError(
        f"adapter {card.id} is of kind {kind}; the engine runs LoRA, P-Tuning, prompt and prefix tuning; "
        "merge it into its base (PEFT's merge_and_unload) and load that folder"
    )


def _products(card: AdapterCard, config: Any, tensors: dict[str, torch.Tensor], model: Any, max_rank: int) -> Products:
    special = [name for name in PLAIN if getattr(config, name, None)]
    special += ["bias"] if config.bias != "none" else []
    special += [f"init_lora_weights={config.init_lora_weights}"] if _changes_base(config.init_lora_weights) else []
    matrices = [name for name in tensors if not (config.use_dora and _is_length(name))]
    strange = [name for name in matrices if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    if special or strange:
        raise UnsupportedAdapterError(
            f"adapter {card.id} uses {', '.join(special) or strange[0]}, beyond plain LoRA on linear layers; "
            "merge it into its base (PEFT's merge_and_unload) and load that folder"
        )
    modules = dict(model.named_modules())
    found = {}
    for key in sorted(name for name in tensors if name.endswith(".lora_A.weight")):
        name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        a, b = tensors[key], tensors.get(key.replace(".lora_A.", ".lora_B."))
        module = modules.get(name)
        if b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise AdapterNotFoundError(
                f"adapter {card.id} is damaged: {name} lacks its second matrix; restore its files"
            )
        rank = a.shape[0]
        if rank > max_rank:
            raise UnsupportedAdapterError(
                f"adapter {card.id} has rank {rank}, the engine takes {max_rank}; raise max_rank"
            )
        if module is None or shape_of(module) == (0, 0) or shape_of(module) != (b.shape[0], a.shape[1]):
            raise AdapterMismatchError(
                f"adapter {card.id} changes {name} [{b.shape[0]}, {a.shape[1]}], which this base does not have; "
                f"it was trained on {card.base}: load that base"
            )
        scale = _alpha(card, config, name) / (rank**0.5 if config.use_rslora else rank)
        found[name] = (a, b * scale)
    if not found or 2 * len(found) != len(matrices):
        raise AdapterNotFoundError(f"adapter {card.id} is damaged: it lacks weights; restore its files")
    return found


def _is_length(name: str) -> bool:
    return name.endswith((LENGTH, f"{LENGTH}.weight"))


def _set_lengths(
    card: AdapterCard, products: Products, lengths: dict[str, torch.Tensor], model: Any
) -> tuple[Products, Gains]:
    """Turn DoRA's lengths m of the rows of W + s B A into products and gains.

    The layer puts out m / |W + s B A| (W + s B A) x + bias, row by row: with g = m / |W + s B A| that is its own output
    and (g - 1) W x + g s B A x.
    """
    modules = dict(model.named_modules())
    scaled: Products = {}
    gains: Gains = {}
    for name, (a, b) in products.items():
        length = lengths.get(f"{PREFIX}{name}.{LENGTH}", lengths.get(f"{PREFIX}{name}.{LENGTH}.weight"))
        if length is None or length.numel() != b.shape[0]:
            raise AdapterNotFoundError(
                f"adapter {card.id} is damaged: {name} lacks its rows' lengths; restore its files"
            )
        weight = dequantize_module_weight(modules[name]).detach().to(a.device, torch.float32)
        weight = weight.T if hasattr(modules[name], "nf") else weight
        norm = torch.linalg.norm(weight + b.float() @ a.float(), dim=1)
        gain = length.float().flatten() / norm
        if not torch.isfinite(gain).all():
            raise AdapterMismatchError(
                f"adapter {card.id} leaves no row of {name} in this base; it was trained on {card.base}: load that base"
            )
        scaled[name], gains[name] = (a, b * gain[:, None]), gain - 1
    if len(lengths) != len(products):
        raise AdapterNotFoundError(f"adapter {card.id} is damaged: it has lengths without weights; restore its files")
    return scaled, gains


def _alpha(card: AdapterCard, config: Any, module: str) -> float:
    """Return a layer's alpha; PEFT takes the keys of its pattern for regular expressions, which could run for ever."""
    alpha = config.lora_alpha
    for key, own in (config.alpha_pattern or {}).items():
        if not re.fullmatch(r"\^?[\w.]+", key):
            raise UnsupportedAdapterError(
                f"adapter {card.id} has alpha_pattern {key!r}; only names of layers are taken"
            )
        if module == key.lstrip("^") or (not key.startswith("^") and module.endswith(f".{key}")):
            alpha = own
            break
    if not isinstance(alpha, int | float) or not 0 <= abs(alpha) < 1e9:
        raise AdapterNotFoundError(
            f"adapter {card.id} is damaged: lora_alpha {alpha!r} is no number; restore its files"
        )
    return float(alpha)


def _changes_base(init: object) -> bool:
    """Tell whether PEFT would change the base's weights, too, when it loads an adapter begun in this way."""
    return isinstance(init, str) and init.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga"))


def _virtual(card: AdapterCard, tensors: dict[str, torch.Tensor], model: Any, *, is_past: bool) -> AdapterWeights:
    virtual = tensors.get("prompt_embeddings")
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    hidden = model.get_input_embeddings().weight.shape[1]
    expected = config.num_hidden_layers * 2 * heads * width if is_past else hidden
    if virtual is None or virtual.ndim != 2:
        raise AdapterNotFoundError(f"adapter {card.id} holds no prompt embeddings; restore its files")
    if virtual.shape[1] != expected:
        raise AdapterMismatchError(
            f"adapter {card.id} has prompt embeddings of {virtual.shape[1]} numbers, where this base takes {expected}; "
            f"it was trained on {card.base}: load that base"
        )
    return AdapterWeights(virtual=virtual, is_past=is_past)
