"""Open a `ChromaStore` by names, as the command line and `langgraph.json` give them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import chromadb
from langchain_core.embeddings import Embeddings

from cmat_graph.errors import ConfigurationError, MemoryStoreError
from cmat_graph.memory.chroma.records import Records
from cmat_graph.memory.chroma.store import ChromaStore
from cmat_graph.memory.embeddings import HashingEmbeddings, load_embeddings


def open_store(
    path: str | os.PathLike[str],
    *,
    server: str | None = None,
    records: str | None = None,
    embeddings: str | None = None,
) -> ChromaStore:
    """Open a store, or make one.

    Args:
        path: Its folder.
        server: `HOST:PORT` of a Chroma server, which several processes may share.
        records: SQLAlchemy URL of the items, if they are not in the folder.
        embeddings: What embeds it, as `load_embeddings` takes it; by default what embedded it before, or `hashing`.
            A store that something else embedded can be looked at without it, but not searched or written by meaning.

    """
    items = Path(path) / "items.db"
    if embeddings is not None:
        chosen = load_embeddings(embeddings)
    else:
        chosen = _stored(records or f"sqlite:///{items}") if records or items.is_file() else HashingEmbeddings()
    return ChromaStore(path, client=connect(server), records=records, embeddings=chosen)


def connect(server: str | None) -> Any:
    """Return a client of a Chroma server; None for none."""
    if not server:
        return None
    host, _, port = server.rpartition(":")
    if not port.isdigit():
        raise ConfigurationError(f"no server at {server!r}: give HOST:PORT, such as localhost:8000")
    try:
        return chromadb.HttpClient(host=host or "localhost", port=int(port))
    except Exception as exc:  # chromadb raises ValueError, and httpx's errors, for a server that is away
        raise MemoryStoreError(f"no Chroma server at {server}; start one: chroma run --port {port}") from exc


class AbsentEmbeddings(Embeddings):
    """Stands for a store's embedding that is not at hand: all that needs no vectors works."""

    def __init__(self, name: str, dimensions: int) -> None:
        self.name, self.dimensions = name, dimensions

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Refuse."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Refuse."""
        raise ConfigurationError(f"this store is embedded by {self.name}; name it, such as --embeddings minilm:FOLDER")


def _stored(records: str) -> Embeddings:
    """Return the embedding that the items at a URL have, as far as its name tells how to make it."""
    opened = Records(records)
    dimensions, name = opened.state().get("embedding", (0, ""))
    opened.close()
    same = HashingEmbeddings(dimensions) if dimensions else HashingEmbeddings()
    return same if name in ("", same.name) else AbsentEmbeddings(name, dimensions)
