"""What items are found by, as vectors: texts by path, embedded once each, of one embedding only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from langgraph.store.base import get_text_at_path

from cmat_graph.errors import EmbeddingMismatchError
from cmat_graph.memory.chroma.exact import Vector, normalised
from cmat_graph.memory.chroma.records import Matrix
from cmat_graph.memory.embeddings import embedding_id


class Embedder:
    """An embedding with the paths of a value that it embeds.

    Args:
        embeddings: Any LangChain embeddings.
        fields: Paths of what an item is found by, where its `put` names none.

    """

    def __init__(self, embeddings: Embeddings, fields: Sequence[str]) -> None:
        self.embeddings, self._fields = embeddings, list(fields)
        self.name = embedding_id(embeddings)
        self.dimensions = 0
        """Length of its vectors; 0 until it is known."""

    def measure(self) -> int:
        """Return the length of its vectors, by a trial where it does not say."""
        known = getattr(self.embeddings, "dimensions", None)
        if isinstance(known, int) and known > 0:
            return known
        return len(self.embeddings.embed_query("size"))

    def embed(
        self, values: Mapping[str, tuple[Mapping[str, Any] | None, Any]], known: Mapping[str, Any] | None = None
    ) -> dict[str, Matrix]:
        """Embed values, each a pair of the value and its `index`; return `[parts, dimensions]` for each.

        What `known` stored items are found by already keeps its vectors.
        """
        texts = {key: self._texts(value, index) for key, (value, index) in values.items()}
        kept = {
            key: rows for key, row in (known or {}).items() if (rows := self._unchanged(row, texts[key])) is not None
        }
        unique = list(dict.fromkeys(text for key, several in texts.items() if key not in kept for text in several))
        rows = self._rows(self.embeddings.embed_documents(unique) if unique else [])
        if len(rows) != len(unique):
            raise EmbeddingMismatchError(f"{self.name} gave {len(rows)} vectors for {len(unique)} texts")
        place = {text: i for i, text in enumerate(unique)}
        return {
            key: kept[key] if key in kept else rows[[place[text] for text in several]] for key, several in texts.items()
        }

    def embed_rows(self, rows: Sequence[Any]) -> list[Matrix]:
        """Embed stored items anew."""
        found = self.embed({row.id: (json.loads(row.value), json.loads(row.fields)) for row in rows})
        return [found[row.id] for row in rows]

    def query(self, text: str) -> Vector:
        """Embed a query, as a vector of length one."""
        vector: Vector = normalised(self._rows([self.embeddings.embed_query(text)]))[0]
        return vector

    def _unchanged(self, row: Any, texts: list[str]) -> Matrix | None:
        if not texts or len(texts) != row.parts or self._texts(json.loads(row.value), json.loads(row.fields)) != texts:
            return None
        return np.frombuffer(row.vectors, dtype="<f4").reshape(-1, self.dimensions)

    def _texts(self, value: Mapping[str, Any] | None, index: Any) -> list[str]:
        if value is None or index is False:
            return []
        return [text for path in (self._fields if index is None else index) for text in get_text_at_path(value, path)]

    def _rows(self, vectors: list[list[float]]) -> Matrix:
        wrong = next((len(vector) for vector in vectors if len(vector) != self.dimensions), None)
        if wrong is not None:
            raise mismatch(self.name, self.dimensions, "what came now", wrong)
        rows = np.asarray(vectors, dtype="<f4").reshape(-1, self.dimensions)
        if not np.isfinite(rows).all():
            raise ValueError(f"{self.name} gave a vector that is not finite")
        return rows


def mismatch(stored: str, dimensions: int, given: str, its: int) -> EmbeddingMismatchError:
    """Say that vectors of two embeddings do not mix, and how to go over to the other."""
    return EmbeddingMismatchError(
        f"this store was embedded by {stored} ({dimensions} dimensions), and {given} ({its}) would not find what "
        f"it holds; open it with {stored}, or embed it anew: cmat-graph memory reindex PATH --embeddings NAME "
        f"(in Python: ChromaStore.rebuild(path, embeddings=...))"
    )
