"""Where a base model lies: a hub id, a folder, or one that ships with the package: `nano`, or `abacus`."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from cmat_graph.errors import ModelNotFoundError

NANO_FOLDER = Path(__file__).parent / "models" / "nano"
BUNDLED = {"nano": NANO_FOLDER, "abacus": NANO_FOLDER.with_name("abacus")}
"""`nano` acts in the built-in environments; `abacus` debates about arithmetic."""
SMALL = 10_000_000
"""Parameters: with TinyAgent-nano's 1.9 million two threads were a quarter slower than one, with 30 million faster."""


def resolve_base(base: str) -> str:
    """Return what `from_pretrained` takes for a base.

    Raises:
        ModelNotFoundError: A folder without a model, or a name that is neither a folder nor a hub id.

    """
    if base in BUNDLED:
        return str(BUNDLED[base])
    folder = Path(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(f"{base} holds no model (no config.json); give a Hugging Face model folder")
        return str(folder)
    if base.count("/") == 1 and not base.startswith((".", "/", "~")) and not base.endswith("/"):
        return base
    known = " or ".join(map(repr, BUNDLED))
    raise ModelNotFoundError(f"no model {base!r}; give {known}, a model folder, or a hub id such as Qwen/Qwen3-0.6B")


@lru_cache(maxsize=16)
def hash_base(location: str) -> str:
    """Return the SHA-256 of a local base's weights; empty for one that is only on the hub."""
    files = sorted(Path(location).glob("*.safetensors")) if Path(location).is_dir() else []
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as weights:
            while block := weights.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() if files else ""


@lru_cache(maxsize=16)
def is_small(location: str) -> bool:
    """Tell whether a base has fewer than `SMALL` parameters: on a CPU it is fastest in float32, on one thread.

    Raises:
        OSError: It cannot be read; also ValueError and KeyError, as `from_pretrained` raises them.

    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):  # takes no memory
        return bool(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(location)).num_parameters() < SMALL)
