"""Embeddings that need no model and no network."""

from __future__ import annotations

import hashlib
import math
import re

from langchain_core.embeddings import Embeddings


class HashingEmbeddings(Embeddings):
    """Hash words and character trigrams into a fixed number of signed, L2-normalised dimensions.

    Deterministic and instant; it sees shared words, not shared meaning. Any LangChain `Embeddings` can take its place.
    """

    def __init__(self, dimensions: int = 384) -> None:
        self.dimensions = dimensions
        self.name = f"hashing-{dimensions}"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed one text; the empty text gets the first unit vector."""
        vector = [0.0] * self.dimensions
        for word in re.findall(r"\w+", text.lower()):
            padded = f"#{word}#"
            for piece in (word, *(padded[i : i + 3] for i in range(len(padded) - 2))):
                digest = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest(), "big")
                vector[(digest >> 1) % self.dimensions] += 1.0 if digest & 1 else -1.0
        norm = math.sqrt(sum(x * x for x in vector))
        if norm == 0.0:
            vector[0] = norm = 1.0
        return [x / norm for x in vector]
