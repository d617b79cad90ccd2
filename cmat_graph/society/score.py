"""How one method did with one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cmat_graph.debate.records import Debate


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One method, with one seed, after one iteration: what is kept of it."""

    arm: str
    """The method and its iteration, such as `maft-2`."""
    seed: int
    correct: dict[str, float]
    """1 or 0 of each test question, by its id. An answer that cannot be read is wrong."""
    calls: float
    """Model calls for a question."""
    tokens: float
    """Tokens read and written for a question."""
    seconds: float = 0.0
    """What the test took."""
    failed: int = 0
    """Calls of the test that failed; who failed has no answer."""
    trained: dict[str, Any] = field(default_factory=dict)
    """What training it took, with all that came before: `models`, `tokens`, `seconds`, `calls` for its data."""
    labels: dict[str, float] = field(default_factory=dict)
    """Of the pseudo-labels that it learned from: share that is right by gold, share of questions that have one, and
    mean agreement."""
    sets: dict[str, Any] = field(default_factory=dict)
    """Rows of each agent's training set."""
    diversity: dict[str, Any] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    """Which weights played, by seat: `node/name@hash`."""

    def __post_init__(self) -> None:
        """Refuse what a damaged file holds.

        Raises:
            ValueError: There is no score of a question in it.

        """
        told = (self.correct, self.trained, self.labels, self.sets, self.diversity, self.adapters)
        if not all(isinstance(each, dict) for each in told) or not all(map(_is_number, self.correct.values())):
            raise ValueError("holds no scores")
        if not self.correct or not all(map(_is_number, (self.calls, self.tokens, self.seconds, self.failed))):
            raise ValueError("holds no scores, or no costs")

    @property
    def kept(self) -> list[str]:
        """The seats that had nothing to learn from, and stayed as they were."""
        if "none" in self.sets:
            return ["all"]
        return [node for node, told in self.sets.items() if isinstance(told, dict) and told.get("made") is False]

    @property
    def accuracy(self) -> float:
        """Share of test questions that are right."""
        return sum(self.correct.values()) / max(1, len(self.correct))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def label_quality(debates: Sequence[Debate], gold: Mapping[str, bool]) -> dict[str, float]:
    """Tell how good the consensus is as a label; the paper never reports it.

    Args:
        debates: On training questions.
        gold: Whether the consensus of each is right, by task id.

    """
    voiced = [debate for debate in debates if debate.answer]
    return {
        "labelled": round(len(voiced) / max(1, len(debates)), 4),
        "right": round(sum(gold[debate.task.id] for debate in voiced) / max(1, len(voiced)), 4),
        "agreement": round(sum(debate.vote.share for debate in voiced) / max(1, len(voiced)), 4),
    }
