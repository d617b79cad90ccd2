"""Write a base and its LoRA adapter as one Hugging Face folder, which every engine can load."""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from cmat_graph.adapters import AdapterCard
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.errors import (
    AdapterMismatchError,
    AdapterNotFoundError,
    ConfigurationError,
    MissingExtraError,
    ModelNotFoundError,
    UnsupportedAdapterError,
)

MERGEABLE = ("lora", "rslora", "dora", "qlora")


def merge(card: AdapterCard, target: str | Path, *, base: str | None = None, dtype: str = "auto") -> Path:
    """Merge an adapter into its base; a fully finetuned model is copied.

    The sum is made in float32, whatever is written, so that small changes are not lost on the way. The folder is
    written aside and renamed.

    Args:
        card: The adapter.
        target: The folder to make.
        base: Where its base lies now, if that is not what the card says.
        dtype: What is written: `auto` is the base's own.

    Returns:
        The folder, with weights, tokenizer and chat template.

    Raises:
        UnsupportedAdapterError: A method that stands in front of the prompt, and in no weight.
        AdapterMismatchError: `base` is another one than it was trained on.
        ConfigurationError: There is something at the target already.
        AdapterNotFoundError: Its files cannot be read.

    Example:
        >>> merge(registry.get("assistant"), "merged/")  # doctest: +SKIP

    """
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there already; give a folder that is not")
    if not card.is_full and card.method not in MERGEABLE:
        raise UnsupportedAdapterError(
            f"{card.id} is {card.method}, which changes no weight of its base; only LoRA of any kind can be merged: "
            "serve it with cmat-graph serve"
        )
    aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    aside.mkdir(parents=True)
    try:
        if card.is_full:
            _copy(Path(card.folder), aside)
        else:
            _merge(card, aside, base or card.base, dtype)
        if folder.is_dir():
            folder.rmdir()
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _merge(card: AdapterCard, target: Path, base: str, dtype: str) -> None:
    location = locate_base(card, base)
    if card.base_hash and (found := hash_base(location)) and found != card.base_hash:
        raise AdapterMismatchError(f"{card.id} was trained on {card.base}, not on {base}; give its base with --base")
    try:
        torch, peft, transformers = (import_module(name) for name in ("torch", "peft", "transformers"))
    except ImportError as exc:
        raise MissingExtraError.of("local", exc) from exc
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config: Any = transformers.AutoConfig.from_pretrained(location)
        model = transformers.AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32, use_safetensors=True)
        try:
            merged = peft.PeftModel.from_pretrained(model, card.folder).merge_and_unload()
        except (OSError, ValueError, RuntimeError, KeyError) as exc:
            reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise AdapterNotFoundError(f"cannot merge {card.id}: {reason}; restore its files") from exc
        own = config.dtype if dtype == "auto" else getattr(torch, dtype)
        merged.to(own or torch.float32).save_pretrained(str(target))
        transformers.AutoTokenizer.from_pretrained(location).save_pretrained(str(target))


def locate_base(card: AdapterCard, base: str) -> str:
    """Return what `from_pretrained` takes for the base of an adapter.

    Raises:
        ModelNotFoundError: It is not where it was.

    """
    try:
        return resolve_base(base)
    except ModelNotFoundError as exc:
        raise ModelNotFoundError(f"the base of {card.id} is not found: {exc}; say where it lies with --base") from exc


def _copy(source: Path, target: Path) -> None:
    """Copy a whole model, and leave what belongs to the registry."""
    for file in source.iterdir():
        if file.is_file() and file.name != "card.json":
            shutil.copy2(file, target / file.name)
