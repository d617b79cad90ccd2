"""The rules by which recorded debates become training sets. The paper publishes no value of its `w`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cmat_graph.answers import answer_kind
from cmat_graph.errors import ConfigurationError

Mixing = Literal["proportion", "fraction", "authors"]
Loss = Literal["final", "all_turns"]
MIXINGS: tuple[Mixing, ...] = ("proportion", "fraction", "authors")
LOSSES: tuple[Loss, ...] = ("final", "all_turns")


@dataclass(frozen=True, slots=True, kw_only=True)
class DebateSetSettings:
    """What is taken of recorded debates, and how a critic's two kinds of trajectories are mixed."""

    mixing: Mixing = "proportion"
    """How a critic's set is drawn from its repairs (C-) and from where it stayed right (C+). `proportion`: as many rows
    as there can be of which the share `w` is C-. `fraction`: the share `w` of all C- and 1 - `w` of all C+. `authors`,
    as in their code: every C-, and with each by the toss of a coin one C+."""
    w: float = 0.5
    """The weight of C-, in 0..1; `authors` does not look at it."""
    loss: Loss = "final"
    """`final` learns an agent's last reply alone, with what came before as context. `all_turns` learns every reply of
    the chat, as the authors' code does: also the wrong one that is repaired later."""
    minimum_agreement: float = 0.0
    """Questions are left out where a smaller share of the agents' last answers is the consensus."""
    weigh_by_agreement: bool = False
    """Weigh each row with that share, so that doubtful pseudo-labels teach less."""
    kind: str = ""
    """How answers are read and compared, by a name of `answers.KINDS`; empty takes what the debate recorded."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mixing not in MIXINGS or self.loss not in LOSSES:
            raise ConfigurationError(
                f"no mixing {self.mixing!r} or loss {self.loss!r}; "
                f"mixing: {', '.join(MIXINGS)}; loss: {', '.join(LOSSES)}"
            )
        if not 0 <= self.w <= 1 or not 0 <= self.minimum_agreement <= 1:
            raise ConfigurationError("w and minimum_agreement are shares: give numbers in 0..1")
        if self.kind:
            answer_kind(self.kind)
