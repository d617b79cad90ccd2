"""Embeddings that need no model and no network, and the names by which embeddings are told apart."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from functools import lru_cache
from hashlib import blake2b

from langchain_core.embeddings import Embeddings

from cmat_graph.errors import ConfigurationError

VERSION = 2
"""Part of the name: whoever changes a vector raises it, and stores of older vectors ask to be rebuilt."""
KNOWN = "hashing, hashing:DIMENSIONS, minilm:FOLDER"
FULL, FAINT = 64, 8
"""Weights of a word and of a function word. Integers, so that no platform rounds a sum in another way."""
EAST = "\u2e80"
"""Chinese, Japanese and Korean begin here: no spaces between words, and words of one or two characters."""
FUNCTION_WORDS = frozenset(
    "a an and any all are as at be been but by can could did do does each every for from had has have he her here his "
    "how i if in is it its may me might must my of on or our shall she should so than that the their them then there "
    "these they this those to was we were what when where which who whom whose will with would you your".split()
)

# The classes of characters are written out: `\w` grows with each version of Unicode that Python brings.
_WORD = re.compile(
    "[0-9a-z_\u00c0-\u1fff\u2c00-\u2dff]{1,64}"
    "|[\u2e80-\u2fff\u3005-\u3007\u3021-\ud7ff\uf900-\ufdff\ufe70-\ufefe\uff10-\uffdc\U00010000-\U0010ffff]{1,64}"
)
_CASED = re.compile("[A-Z\u00c0-\u058f\u1e00-\u1fff]+")
_DOMAIN = b"cmat-hashing-%d" % VERSION
_MARKS = re.compile("[\u00d7\u00f7\u037e\u0387\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965]")
_THOUSANDS = re.compile("(?<=[0-9]),(?=[0-9]{3})")


class HashingEmbeddings(Embeddings):
    """Hash words and their character n-grams into a fixed number of signed, L2-normalised dimensions.

    Deterministic on every platform and instant; it sees shared words and word stems, not shared meaning. English
    function words weigh little, and a word that is repeated counts less each time.

    Args:
        dimensions: Length of a vector; fewer make more words collide.

    Example:
        >>> near = HashingEmbeddings()
        >>> paid, also, other = near.embed_documents(["Pay order 7", "Order 7 is paid", "List the rivers"])
        >>> sum(a * b for a, b in zip(paid, also)) > sum(a * b for a, b in zip(paid, other))
        True

    """

    def __init__(self, dimensions: int = 384) -> None:
        if dimensions < 1:
            raise ConfigurationError(f"an embedding needs at least one dimension, not {dimensions}")
        self.dimensions = dimensions
        self.name = f"hashing-{VERSION}-{dimensions}"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed one text; a text without words gets the first unit vector."""
        vector = [0] * self.dimensions
        for word, count in Counter(_words(text)).items():
            weight, plus, minus = _pieces(word, self.dimensions)
            weight *= _damped(count)
            for i in plus:
                vector[i] += weight
            for i in minus:
                vector[i] -= weight
        norm = math.sqrt(sum([x * x for x in vector]))
        if norm == 0.0:
            vector[0] = 1
            norm = 1.0
        return [x / norm for x in vector]

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text at once; a thread would cost more than the work."""
        return self.embed_query(text)


def embedding_id(embeddings: Embeddings) -> str:
    """Name what makes the vectors: two embeddings with unlike names must not be mixed in one store.

    It is the attribute `name`, else the class with its `model` or `model_name`.

    Example:
        >>> embedding_id(HashingEmbeddings(512))
        'hashing-2-512'

    """
    name = getattr(embeddings, "name", None)
    if isinstance(name, str) and name:
        return name
    kind = type(embeddings).__name__
    models = (getattr(embeddings, field, None) for field in ("model", "model_name"))
    return next((f"{kind}-{model}" for model in models if isinstance(model, str) and model), kind)


def load_embeddings(spec: str) -> Embeddings:
    """Make the embeddings that a setting names: `hashing`, `hashing:512` or `minilm:/path/of/the/folder`.

    Raises:
        ConfigurationError: There is no such embedding.
        ModelNotFoundError: The folder holds no such model.
        MissingExtraError: The extra `embeddings` is not installed.

    """
    kind, colon, given = spec.strip().partition(":")
    if kind == "hashing" and not colon:
        return HashingEmbeddings()
    if kind == "hashing" and given.isascii() and given.isdigit():
        return HashingEmbeddings(int(given))
    if kind == "minilm" and given:
        from cmat_graph.memory.minilm import MiniLMEmbeddings

        return MiniLMEmbeddings(given)
    raise ConfigurationError(f"unknown embedding {spec!r}; known: {KNOWN}")


def _words(text: str) -> list[str]:
    if not text.isascii():
        # Unicode 3.2 is frozen in every Python; case is folded where no script can still grow.
        text = unicodedata.ucd_3_2_0.normalize("NFKC", text)
        text = _MARKS.sub(" ", _CASED.sub(_lower, text))
    else:
        text = text.lower()
    return _WORD.findall(_THOUSANDS.sub("", text))


def _lower(found: re.Match[str]) -> str:
    return found.group().lower()


@lru_cache(maxsize=1 << 15)
def _pieces(word: str, dimensions: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return the weight of each piece of a word, where pieces are added and where they are subtracted."""
    padded = f"#{word}#"
    sizes = (1, 2, 3) if word[0] >= EAST else (3, 4, 5)
    pieces = [padded[i : i + n] for n in sizes for i in range(len(padded) - n + 1)]
    signs: dict[int, list[int]] = {0: [], 1: []}
    for piece in pieces:
        digest = int.from_bytes(blake2b(piece.encode(), digest_size=8, person=_DOMAIN).digest(), "big")
        signs[digest & 1].append((digest >> 1) % dimensions)
    # The fourth root lets a long word weigh more than a short one, but not as much as it has pieces.
    full = FAINT if word in FUNCTION_WORDS else FULL
    weight = max(1, round(full / math.sqrt(math.sqrt(len(pieces)))))
    return weight, tuple(signs[1]), tuple(signs[0])


def _damped(count: int) -> int:
    """Return the square root of a count, in eighths."""
    return 8 if count == 1 else round(8 * math.sqrt(count))
