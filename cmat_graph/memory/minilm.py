"""all-MiniLM-L6-v2 from a local folder: embeddings that see meaning, on a CPU, without a network.

torch takes as many threads as there are cores. Beside another busy process they wait for each other: start yours with
`OMP_NUM_THREADS=1` then. How many threads a process has is yours to say, so nothing here sets it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

from cmat_graph.errors import MissingExtraError, ModelNotFoundError

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin beside a busy process take ten times as long

try:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging
except ImportError as exc:
    raise MissingExtraError.of("embeddings", exc) from exc

FILES = ("config.json", "model.safetensors", "tokenizer.json")
MAX_PIECES = 256
"""Word pieces of a text that count; the model's card says that it cuts what is longer."""
BATCH = 32
UNUSED = ("pooler.", "embeddings.position_ids")
"""Weights that mean pooling does without, so a folder may lack them."""


class MiniLMEmbeddings(Embeddings):
    """Embed with sentence-transformers/all-MiniLM-L6-v2, or a model of the same kind (BERT, mean pooling). Thread-safe.

    Args:
        path: Folder with config.json, model.safetensors and tokenizer.json.
        device: Where torch computes, such as `cuda`.

    Raises:
        ModelNotFoundError: The folder is missing or incomplete.

    Example:
        >>> MiniLMEmbeddings("all-MiniLM-L6-v2/").name  # doctest: +SKIP
        'minilm-53aa51172d14'

    """

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu") -> None:
        folder = Path(path)
        if missing := [name for name in FILES if not (folder / name).is_file()]:
            raise ModelNotFoundError(f"{folder} holds no {' and no '.join(missing)}; {_FIX}")
        self._lock = threading.Lock()
        self._device = device
        self._tokenizer: Any
        self._model: Any
        self._tokenizer, self._model = _load(folder, device)
        self.name = f"minilm-{_hash(folder / 'model.safetensors')[:12]}"
        self.dimensions: int = self._model.config.hidden_size

    def embed_query(self, text: str) -> list[float]:
        """Embed one text."""
        return self.embed_documents([text])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts; those of like length go through the model together."""
        if not texts:
            return []
        with self._lock:  # truncation is a state of the tokenizer
            found = self._tokenizer(texts, truncation=True, max_length=MAX_PIECES, padding=False)["input_ids"]
        longest_first = sorted(range(len(texts)), key=lambda i: -len(found[i]))
        vectors: list[list[float]] = [[] for _ in texts]
        for start in range(0, len(texts), BATCH):
            rows = longest_first[start : start + BATCH]
            for i, vector in zip(rows, self._embed([found[i] for i in rows]), strict=True):
                vectors[i] = vector
        return vectors

    def _embed(self, rows: list[list[int]]) -> list[list[float]]:
        ids = torch.full((len(rows), len(rows[0])), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row)
            mask[at, : len(row)] = 1
        # One batch at a time: two at once would only share the cores, and a query waits for no more than one.
        with self._lock, torch.inference_mode():
            mask = mask.to(self._device)
            hidden = self._model(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            means = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
            found: list[list[float]] = torch.nn.functional.normalize(means, dim=1).tolist()
        return found


_FIX = (
    "give a folder of sentence-transformers/all-MiniLM-L6-v2 that holds "
    "config.json, model.safetensors and tokenizer.json"
)


def _hash(file: Path) -> str:
    with file.open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()


def _load(folder: Path, device: str) -> tuple[Any, Any]:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, found = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise ModelNotFoundError(f"cannot load {folder}: {reason}; {_FIX}") from exc
    if random := [name for name in found["missing_keys"] if not name.startswith(UNUSED)]:
        raise ModelNotFoundError(f"{folder} lacks {len(random)} weights of its model, {random[0]} for one; {_FIX}")
    return tokenizer, model.to(device).eval()
