"""What was measured, with the definitions that the figures stand for: the papers leave most of them open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

DEFINITIONS = {
    "consensus": "share of agents whose last answer is the vote's, a mean over questions; an answer that cannot be "
    "read agrees with nobody, and a question without a consensus counts 0",
    "diversity": "1 - consensus",
    "nll": "mean over questions, over each agent h and over all other agents j, of -(1/T_j) sum_t "
    "log p_h(y_j,t | context_j, y_j,<t): replies of the last round under another agent's model, each in the chat in "
    "which it was given, with the token that ends it; in nats a token",
    "embedding": "mean over questions and pairs of agents of 1 - cos(e_i, e_j), of the last replies that give the "
    "consensus",
    "kl": "mean over questions and ordered pairs of agents of KL(i || j) = mean_t sum_v p_i log(p_i / p_j), on agent "
    "i's own tokens after the same chat, by the agents' own next-token distributions over the whole vocabulary; nats",
    "kl_base": "mean over questions and agents of the same KL between agent i and the base",
    "kl_external": "mean over questions and ordered pairs of agents of the KL between the scorer's next-token "
    "distributions, teacher-forced on each reply after the bare question, position by position up to the end of the "
    "shorter reply; nats",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure."""

    value: float | None
    """The mean over questions; None where no question allows it."""
    stderr: float | None = None
    """Its standard error over questions; None of fewer than two."""
    questions: int = 0
    """How many it is a mean over."""
    each: dict[str, float] = field(default_factory=dict)
    """The same for each agent, or for each pair as `0|1`."""

    @classmethod
    def of(cls, values: Sequence[float], each: dict[str, float] | None = None) -> Measure:
        """Take the mean of one value a question.

        Example:
            >>> Measure.of([1.0, 0.0]).value
            0.5

        """
        if not values:
            return cls(value=None, each=each or {})
        size = len(values)
        mean = math.fsum(values) / size
        spread = math.fsum((value - mean) ** 2 for value in values)
        stderr = math.sqrt(spread / (size - 1) / size) if size > 1 else None
        return cls(value=mean, stderr=stderr, questions=size, each=each or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """How different the agents of a society are, on one run of debates."""

    run: str | None
    base: str
    agents: int
    models: dict[str, str]
    """Which adapter sat where, by seat; `base` for none."""
    questions: int
    """Questions of the run."""
    sampled: int
    """Of these the models were asked about so many again."""
    seed: int
    too_long: int = 0
    """Replies left out, since they and their chat are longer than the window."""
    consensus: Measure
    nll: Measure
    embedding: Measure
    embedder: str
    """Who made the vectors, and how tokens were pooled."""
    kl_generators: Measure
    kl_critics: Measure
    kl_base_generators: Measure
    kl_base_critics: Measure
    kl_external: Measure | None = None
    scorer: str = ""
    """The model behind `kl_external`; empty for none."""

    @property
    def diversity(self) -> float | None:
        """1 - consensus."""
        return None if self.consensus.value is None else 1.0 - self.consensus.value

    def to_json(self) -> dict[str, Any]:
        """Return what is saved, with the definitions."""
        return {**asdict(self), "diversity": self.diversity, "definitions": DEFINITIONS}
