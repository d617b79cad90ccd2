"""Any LangGraph store in a LangChain application: as a retriever, as a vector store, as tools for agents."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langgraph.store.base import BaseStore, GetOp, Item, Op, PutOp, SearchItem
from langgraph.store.memory import InMemoryStore
from pydantic import Field

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.notes import checked, memory_tools, told

__all__ = ["StoreRetriever", "StoreVectors", "memory_tools"]

Namespace = tuple[str, ...]
Where = dict[str, Any]
DELETED_AT_ONCE = 1000


class StoreRetriever(BaseRetriever):
    """Retrieve the items of a store as documents: text, key as id, everything else as metadata.

    Example:
        >>> from cmat_graph.memory.embeddings import HashingEmbeddings
        >>> store = InMemoryStore(index={"dims": 384, "embed": HashingEmbeddings()})
        >>> store.put(("docs",), "a", {"text": "Oslo is in Norway", "page": 7})
        >>> found = StoreRetriever(store=store, namespace=("docs",)).invoke("Where is Oslo?")
        >>> found[0].page_content, found[0].metadata["page"]
        ('Oslo is in Norway', 7)

    """

    store: BaseStore
    namespace: Namespace = ()
    """Everything under it is searched."""
    k: int = Field(default=3, ge=1)
    """Documents wanted; `invoke(query, k=1)` asks for another number once."""
    filter: Where | None = None
    """What the values must hold, as in `store.search`; `invoke(query, filter={...})` takes another one once."""
    min_score: float | None = None
    """Cosine below which an item is not returned, nor one without a vector."""
    text_field: str = "text"
    """The field that becomes the page's content; of a value without it, all of it does."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Where | None = None,
    ) -> list[Document]:
        where = self.filter if filter is None else filter
        return self._documents(self.store.search(self.namespace, query=query, filter=where, limit=self._limit(k)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Where | None = None,
    ) -> list[Document]:
        where = self.filter if filter is None else filter
        found = await self.store.asearch(self.namespace, query=query, filter=where, limit=self._limit(k))
        return self._documents(found)

    def _limit(self, k: int | None) -> int:
        if k is not None and k < 1:
            raise ConfigurationError(f"a retriever returns at least one document; k={k} asks for none")
        return k or self.k

    def _documents(self, found: Sequence[SearchItem]) -> list[Document]:
        least = self.min_score
        kept = [item for item in found if least is None or (item.score is not None and item.score >= least)]
        documents = [_document(item, self.text_field) for item in kept]
        for document, item in zip(documents, kept, strict=True):
            document.metadata |= {"namespace": list(item.namespace), "score": item.score}
        return documents


class StoreVectors(VectorStore):
    """A namespace of a store as LangChain's vector store: a text and its metadata are the fields of one item.

    Args:
        store: A store that embeds: a `ChromaStore`, an `InMemoryStore` with an index.
        namespace: Where the documents are; no other namespace should begin with it.
        text_field: The field of an item that holds the text and is embedded.

    Example:
        >>> from cmat_graph.memory.embeddings import HashingEmbeddings
        >>> vectors = StoreVectors.from_texts(["Oslo is in Norway", "Lima is in Peru"], HashingEmbeddings())
        >>> vectors.similarity_search("Where is Lima?", k=1)[0].page_content
        'Lima is in Peru'

    """

    def __init__(self, store: BaseStore, namespace: Namespace, *, text_field: str = "text") -> None:
        if not text_field or set(text_field) & set(".[]{}*$,"):
            raise ConfigurationError(f"text_field {text_field!r} would be read as a path; take a plain name")
        self.store = store
        self.namespace = checked(namespace)
        self.text_field = text_field

    @property
    def embeddings(self) -> Embeddings | None:
        """The store's embeddings, where it shows them."""
        found = getattr(self.store, "embeddings", None)
        return found if isinstance(found, Embeddings) else None

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        store: BaseStore | None = None,
        namespace: Namespace = ("documents",),
        text_field: str = "text",
        **kwargs: Any,
    ) -> Self:
        """Add texts to a store, which embeds in its own way; without one, to a new one in memory with `embedding`."""
        if store is None:
            store = InMemoryStore(index={"dims": len(embedding.embed_query("size")), "embed": embedding})
        vectors = cls(store, namespace, text_field=text_field)
        vectors.add_texts(texts, metadatas, ids=ids)
        return vectors

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those that have the same ids; return the ids."""
        puts = self._puts(list(texts), metadatas, ids)
        for batch in self._batches(puts):
            self.store.batch(batch)
        return [put.key for put in puts]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those that have the same ids; return the ids."""
        puts = self._puts(list(texts), metadatas, ids)
        for batch in self._batches(puts):
            await self.store.abatch(batch)
        return [put.key for put in puts]

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that there are, in the order of their ids."""
        return self._found(self.store.batch([GetOp(self.namespace, id) for id in ids]))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that there are, in the order of their ids."""
        return self._found(await self.store.abatch([GetOp(self.namespace, id) for id in ids]))

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents, unknown ones too; without ids, all of the namespace."""
        if ids is not None:
            self.store.batch(self._deletes(ids))
            return True
        kept = 0
        while found := self.store.search(self.namespace, limit=DELETED_AT_ONCE, offset=kept):
            doomed = [item.key for item in found if item.namespace == self.namespace]
            self.store.batch(self._deletes(doomed))
            kept += len(found) - len(doomed)
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents, unknown ones too; without ids, all of the namespace."""
        if ids is not None:
            await self.store.abatch(self._deletes(ids))
            return True
        kept = 0
        while found := await self.store.asearch(self.namespace, limit=DELETED_AT_ONCE, offset=kept):
            doomed = [item.key for item in found if item.namespace == self.namespace]
            await self.store.abatch(self._deletes(doomed))
            kept += len(found) - len(doomed)
        return True

    def similarity_search(self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any) -> list[Document]:
        """Return the documents most like a query; `filter` is the store's, such as `{"page": {"$gt": 3}}`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter)]

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the documents most like a query; `filter` is the store's, such as `{"page": {"$gt": 3}}`."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents with their cosine, the nearest first; what has no vector comes last and has 0."""
        if k < 1:
            return []
        return self._scored(self.store.search(self.namespace, query=query, filter=filter, limit=k))

    async def asimilarity_search_with_score(  # type: ignore[override]
        self, query: str, k: int = 4, filter: Where | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents with their cosine, the nearest first; what has no vector comes last and has 0."""
        if k < 1:
            return []
        return self._scored(await self.store.asearch(self.namespace, query=query, filter=filter, limit=k))

    def _select_relevance_score_fn(self) -> Any:
        return lambda cosine: min(1.0, max(0.0, cosine))

    def _scored(self, found: Sequence[SearchItem]) -> list[tuple[Document, float]]:
        return [(_document(item, self.text_field), item.score or 0.0) for item in found]

    def _found(self, found: Sequence[Any]) -> list[Document]:
        return [_document(item, self.text_field) for item in found if item is not None]

    def _deletes(self, ids: Iterable[str]) -> list[Op]:
        return [PutOp(self.namespace, id, None) for id in ids]

    def _puts(
        self, texts: Sequence[str], metadatas: Sequence[dict[str, Any]] | None, ids: Sequence[str | None] | None
    ) -> list[PutOp]:
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(texts):
                raise ValueError(f"{len(texts)} texts need as many {name}, not {len(given)}")
        if any(self.text_field in metadata for metadata in metadatas or ()):
            raise ValueError(f"the text is kept as {self.text_field!r}, so no metadata may bear this name")
        ttl = (self.store.ttl_config or {}).get("default_ttl")
        return [
            PutOp(self.namespace, id or str(uuid.uuid4()), {**metadata, self.text_field: text}, [self.text_field], ttl)
            for text, metadata, id in zip(
                texts, metadatas or [{}] * len(texts), ids or [None] * len(texts), strict=True
            )
        ]

    def _batches(self, puts: Sequence[PutOp]) -> Iterator[list[Op]]:
        """Split where a text comes again: LangGraph's InMemoryStore (1.2.22) fails on two equal texts in a batch."""
        batch: dict[str, Op] = {}
        for put in puts:
            text = (put.value or {})[self.text_field]
            if text in batch:
                yield list(batch.values())
                batch = {}
            batch[text] = put
        if batch:
            yield list(batch.values())


def _document(item: Item, text_field: str) -> Document:
    text, rest = told(item.value, text_field)
    return Document(id=item.key, page_content=text, metadata=rest)
