"""Stores in LangChain: upstream's standard suites, and what an application meets."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from langgraph.store.memory import InMemoryStore

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.chroma import ChromaStore
from cmat_graph.memory.embeddings import HashingEmbeddings
from cmat_graph.memory.langchain import StoreRetriever, StoreVectors

QUIET = pytest.mark.filterwarnings(
    "ignore:The test .* is marked:pytest.PytestWarning"
)  # the suites' sync tests are too
FACTS = {
    "oslo": {"text": "Oslo is the capital of Norway", "page": 7},
    "lima": {"text": "Lima is the capital of Peru", "page": 2},
    "tea": {"text": "Green tea is brewed at 80 degrees", "page": 9},
}


def in_memory() -> InMemoryStore:
    return InMemoryStore(index={"dims": 384, "embed": HashingEmbeddings()})


@pytest.fixture(params=["InMemoryStore", "ChromaStore"])
def facts(request, tmp_path):
    store = in_memory() if request.param == "InMemoryStore" else ChromaStore(tmp_path / "facts")
    for key, value in FACTS.items():
        store.put(("facts", value["text"][0]), key, value, index=["text"])
    store.put(("other",), "oslo", {"text": "Oslo again"})
    yield store
    if request.param == "ChromaStore":
        store.close()


# -- upstream's suites ----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@QUIET
class TestVectorsInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return StoreVectors(InMemoryStore(index={"dims": 6, "embed": self.get_embeddings()}), ("docs",))


@pytest.mark.asyncio
@QUIET
class TestVectorsInChroma(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        with ChromaStore(tmp_path, embeddings=self.get_embeddings()) as store:
            yield StoreVectors(store, ("docs",))


@pytest.mark.asyncio
@QUIET
class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _over(self, facts):
        self.facts = facts

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return StoreRetriever

    @property
    def retriever_constructor_params(self):
        return {"store": self.facts, "namespace": ("facts",)}

    @property
    def retriever_query_example(self):
        return "capital of Peru"


# -- the retriever --------------------------------------------------------------------------------------------------


def test_a_document_says_where_it_is_from(facts):
    (found,) = StoreRetriever(store=facts, namespace=("facts",), k=1).invoke("the capital of Peru")
    assert (found.id, found.page_content) == ("lima", FACTS["lima"]["text"])
    assert found.metadata == {"page": 2, "namespace": ["facts", "L"], "score": pytest.approx(1.0, abs=0.2)}


def test_the_next_question_may_ask_for_fewer_and_for_others(facts):
    retriever = StoreRetriever(store=facts, namespace=("facts",), filter={"page": {"$lt": 9}})
    assert [d.id for d in retriever.invoke("the capital of Norway")] == ["oslo", "lima"]
    assert [d.id for d in retriever.invoke("the capital of Norway", k=1)] == ["oslo"]
    assert [d.id for d in retriever.invoke("the capital of Norway", filter={"page": 2})] == ["lima"]
    assert len(retriever.invoke("the capital of Norway", filter={})) == 3


def test_what_is_unlike_the_question_is_left_out(facts):
    retriever = StoreRetriever(store=facts, namespace=("facts",), min_score=0.3)
    assert {d.id for d in retriever.invoke("the capital of Norway")} == {"oslo", "lima"}
    assert retriever.invoke("a chess opening") == []
    assert asyncio.run(retriever.ainvoke("a chess opening")) == []


def test_an_async_question_gets_the_same_documents(facts):
    retriever = StoreRetriever(store=facts, namespace=("facts",), filter={"page": {"$gt": 2}})
    asked = {"input": "the capital of Norway", "k": 2}
    assert asyncio.run(retriever.ainvoke(**asked)) == retriever.invoke(**asked)


def test_a_value_without_text_is_shown_whole(facts):
    facts.put(("odd",), "a", {"städte": ["Lima"], "text": 7})
    (found,) = StoreRetriever(store=facts, namespace=("odd",)).invoke("Lima")
    assert found.page_content == '{"städte": ["Lima"], "text": 7}'


def test_another_field_may_be_the_text(facts):
    facts.put(("lessons",), "a", {"lesson": "Use COUNT(*).", "task": "count the cities"}, index=["task"])
    (found,) = StoreRetriever(store=facts, namespace=("lessons",), text_field="lesson").invoke("count the people")
    assert found.page_content == "Use COUNT(*)."
    assert found.metadata["task"] == "count the cities"


def test_asking_for_no_document_is_refused(facts):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        StoreRetriever(store=facts, k=0)
    with pytest.raises(ConfigurationError, match="k=0 asks for none"):
        StoreRetriever(store=facts).invoke("capital", k=0)


# -- the vector store -----------------------------------------------------------------------------------------------


@pytest.fixture
def vectors(facts) -> StoreVectors:
    documents = [Document(id=key, page_content=v["text"], metadata={"page": v["page"]}) for key, v in FACTS.items()]
    return StoreVectors.from_documents(documents, HashingEmbeddings(), store=facts, namespace=("docs",))


def test_scores_are_cosines_and_relevance_is_never_negative(vectors):
    found = vectors.similarity_search_with_score("the capital of Norway", k=3)
    assert [document.id for document, _ in found] == ["oslo", "lima", "tea"]
    assert 1.0 >= found[0][1] > found[1][1] > found[2][1] >= -1.0
    near = vectors.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.3, "filter": {"page": 2}}
    )
    assert [d.id for d in near.invoke("the capital of Norway")] == ["lima"]
    assert all(0 <= score <= 1 for _, score in vectors.similarity_search_with_relevance_scores("chess", k=3))


def test_filters_are_the_stores_own(vectors):
    assert [d.id for d in vectors.similarity_search("capital", k=5, filter={"page": {"$gte": 9}})] == ["tea"]
    later = vectors.asimilarity_search("capital", k=5, filter={"page": {"$gte": 9}})
    assert [d.id for d in asyncio.run(later)] == ["tea"]
    assert vectors.similarity_search("capital", k=0) == []


def test_only_the_text_is_embedded(vectors):
    vectors.add_texts(["A word"], [{"note": "the capital of Norway"}], ids=["x"])
    assert vectors.similarity_search("the capital of Norway", k=1)[0].id == "oslo"
    assert vectors.similarity_search("A word", k=1)[0] == Document(
        id="x", page_content="A word", metadata={"note": "the capital of Norway"}
    )


def test_documents_of_the_same_text_are_all_kept(vectors):
    ids = vectors.add_texts(["twice", "twice", "once", "twice"])
    assert len({*ids}) == 4
    assert [d.page_content for d in vectors.get_by_ids(ids)] == ["twice", "twice", "once", "twice"]
    assert [d.page_content for d in vectors.similarity_search("twice", k=3)] == ["twice"] * 3


def test_deleting_without_ids_empties_the_namespace_and_no_other(vectors):
    vectors.store.put(("docs", "below"), "k", {"text": "another collection"})
    assert vectors.delete()
    assert vectors.get_by_ids(list(FACTS)) == []
    vectors.add_texts(["new"], ids=["n"])
    assert asyncio.run(vectors.adelete())
    assert vectors.get_by_ids(["n"]) == []
    assert vectors.store.get(("docs", "below"), "k").value == {"text": "another collection"}
    assert vectors.store.get(("other",), "oslo") is not None


def test_documents_expire_as_the_store_says(tmp_path):
    with ChromaStore(tmp_path, ttl={"default_ttl": 0.001}) as store:  # 60 milliseconds
        vectors = StoreVectors(store, ("docs",))
        vectors.add_texts(["soon gone"], ids=["a"])
        asyncio.run(asyncio.sleep(0.2))
        assert vectors.get_by_ids(["a"]) == []


def test_a_vector_store_of_texts_needs_no_store():
    vectors = StoreVectors.from_texts(["Oslo", "Lima"], HashingEmbeddings(64), [{"n": 1}, {"n": 2}], ids=["o", "l"])
    assert vectors.similarity_search("Lima", k=1) == [Document(id="l", page_content="Lima", metadata={"n": 2})]
    assert isinstance(vectors.embeddings, HashingEmbeddings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metadatas": [{}]}, "2 texts need as many metadatas, not 1"),
        ({"ids": ["a", "b", "c"]}, "2 texts need as many ids, not 3"),
        ({"metadatas": [{"text": "mine"}, {}]}, "no metadata may bear this name"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(given, said):
    store = in_memory()
    with pytest.raises(ValueError, match=said):
        StoreVectors(store, ("docs",)).add_texts(["one", "two"], **given)
    assert store.search(()) == []


@pytest.mark.parametrize("space", ["docs", (), ("a.b",), ("a", ""), ("a", 1)])
def test_a_namespace_is_a_tuple_of_names(space):
    with pytest.raises(ConfigurationError, match=r"a namespace is a tuple of names without periods, such as"):
        StoreVectors(in_memory(), space)


def test_a_text_field_that_would_be_read_as_a_path_is_refused():
    with pytest.raises(ConfigurationError, match="take a plain name"):
        StoreVectors(in_memory(), ("docs",), text_field="page.text")
