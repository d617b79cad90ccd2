"""How final answers of one kind of question are read and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cmat_graph.answers.equivalence import extract_boxed, same_boxed
from cmat_graph.answers.letters import extract_letter, same_letter
from cmat_graph.answers.numbers import extract_integer, extract_number, same_number
from cmat_graph.answers.texts import extract_text, same_text
from cmat_graph.answers.verdicts import extract_verdict, same_verdict
from cmat_graph.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKind:
    """How final answers of one kind of question are read and compared.

    Example:
        >>> number = answer_kind("number")
        >>> number.same(number.extract("Altogether $1,250.00."), "1250")
        True

    """

    name: str
    extract: Callable[[str], str | None]
    """Find the final answer in a reply, normalised; None where it cannot be read."""
    same: Callable[[str, str], bool]
    """Tell whether two extracted answers are equivalent: reflexive, and the same both ways round."""


KINDS: Mapping[str, AnswerKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            AnswerKind(name="number", extract=extract_number, same=same_number),
            AnswerKind(name="integer", extract=extract_integer, same=same_number),
            AnswerKind(name="boxed", extract=extract_boxed, same=same_boxed),
            AnswerKind(name="letter", extract=extract_letter, same=same_letter),
            AnswerKind(name="verdict", extract=extract_verdict, same=same_verdict),
            AnswerKind(name="text", extract=extract_text, same=same_text),
        )
    }
)
"""The kinds there are, by name."""


def answer_kind(name: str) -> AnswerKind:
    """Return a kind of answers by its name.

    Raises:
        ConfigurationError: There is none of this name.

    """
    if name not in KINDS:
        raise ConfigurationError(f"unknown kind of answer {name!r}; known: {', '.join(KINDS)}")
    return KINDS[name]
