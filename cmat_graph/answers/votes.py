"""Majority votes over equivalent answers."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cmat_graph.answers.kinds import AnswerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What came of a vote."""

    answer: str | None
    """The winning group's most frequent answer; None if no reply could be read."""
    groups: tuple[tuple[int, ...], ...]
    """Indexes of the voters by equivalence: the winners first, then the others from the largest down."""
    tied: bool
    """Several groups were the largest; the seed drew one."""
    voters: int
    """How many voted, those that could not be read among them."""

    @property
    def winners(self) -> tuple[int, ...]:
        """Indexes of the voters for the winning answer."""
        return self.groups[0] if self.groups else ()

    @property
    def share(self) -> float:
        """The winners' share of all voters, 0..1."""
        return len(self.winners) / self.voters if self.voters else 0.0

    def speaker(self, answers: Sequence[str | None]) -> int | None:
        """Return who gave the winning answer first, as it stands; others of the winners gave an equivalent one.

        Args:
            answers: Those that were voted on.

        """
        return next((at for at in self.winners if answers[at] == self.answer), None)


def vote(answers: Sequence[str | None], kind: AnswerKind, *, seed: str | int) -> Vote:
    """Group answers by equivalence and pick the largest group; a tie is drawn by the seed.

    Answers that could not be read (None) are no group and never win. Two answers are in one group when a chain of
    equivalent ones joins them, so neither the order of the voters nor that of the comparisons matters.

    Args:
        answers: One for each voter, as `kind.extract` gives them.
        kind: How answers are compared.
        seed: What draws between tied groups, whatever the voters' order.

    Example:
        >>> from cmat_graph.answers import answer_kind
        >>> result = vote(["12", "12.0", None, "7"], answer_kind("number"), seed=0)
        >>> result.answer, result.groups, result.share
        ('12', ((0, 1), (3,)), 0.5)

    """
    counts = Counter(answer for answer in answers if answer is not None)
    named: list[tuple[str, tuple[int, ...]]] = []
    for members in _grouped(sorted(counts), kind):
        voters = tuple(i for i, answer in enumerate(answers) if answer in members)
        named.append((min(members, key=lambda text: (-counts[text], len(text), text)), voters))
    named.sort(key=lambda group: (-len(group[1]), group[0]))
    best = [i for i, (_, voters) in enumerate(named) if len(voters) == len(named[0][1])]
    if len(best) > 1:
        # The answers are in the key, or one seed for many questions would always draw the same place in the alphabet.
        key = json.dumps([str(seed), *(answer for answer, _ in named[: len(best)])])
        named.insert(0, named.pop(random.Random(key).choice(best)))
    return Vote(
        answer=named[0][0] if named else None,
        groups=tuple(voters for _, voters in named),
        tied=len(best) > 1,
        voters=len(answers),
    )


def _grouped(texts: Sequence[str], kind: AnswerKind) -> list[set[str]]:
    """Part different texts into groups that chains of equivalence join."""
    groups: list[set[str]] = []
    for text in texts:
        joined = [group for group in groups if any(kind.same(text, other) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append({text}.union(*joined))
    return groups
