"""Where a base model lies: a hub id, a folder, or `nano`, the one that ships with the package."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from cmat_graph.errors import ModelNotFoundError

NANO = "nano"
NANO_FOLDER = Path(__file__).parent / "models" / "nano"


def resolve_base(base: str) -> str:
    """Return what `from_pretrained` takes for a base.

    Raises:
        ModelNotFoundError: A folder without a model, or a name that is neither a folder nor a hub id.

    """
    if base == NANO:
        return str(NANO_FOLDER)
    folder = Path(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(f"{base} holds no model (no config.json); give a Hugging Face model folder")
        return str(folder)
    if base.count("/") == 1 and not base.startswith((".", "/", "~")) and not base.endswith("/"):
        return base
    raise ModelNotFoundError(f"no model {base!r}; give 'nano', a model folder, or a hub id such as Qwen/Qwen3-0.6B")


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
