"""What a dataset is made from: which episodes, which node, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cmat_graph.errors import ConfigurationError
from cmat_graph.splits import VALIDATION_SHARE

NODES = ("assistant", "checker", "reflect")
Augmentation = Literal["paraphrase", "rename"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestSettings:
    """The rules by which a dataset is made from recorded episodes."""

    node: str = "assistant"
    """The seat to train for, or, in traces of a graph of your own, the name of its node."""
    run: str | None = None
    """Only episodes of this run."""
    env: str | None = None
    split: str | None = "train"
    """Only episodes of this split; None takes all that are not for evaluation."""
    min_reward: float = 1.0
    """Episodes below it teach no turns; their failures still make pairs."""
    max_per_task: int = 8
    """Rows of one task at most, the shortest and most different ones first; 0 is no limit."""
    max_chars: int = 40_000
    """Rows with more text are left out."""
    near_equal: float = 0.9
    """Rows of one task whose texts share this much (Jaccard, word triples) count as one; 1 keeps all but equals."""
    augment: tuple[Augmentation, ...] = ()
    copies: int = 1
    """Augmented rows for each recorded one."""
    reason_first: bool = True
    """Put a reply's reasoning before its action where it stands behind."""
    balance: bool = False
    """Weigh environments equally, however many rows each has."""
    eta: float = 1.0
    """Share of the loss that agent rows have; the rest goes to `general` ones (formula F15). 1 takes no general rows,
    0 only them."""
    general: str = ""
    """JSONL file of general instructions: `messages`, `conversations` or alpaca rows."""
    validation_share: float = VALIDATION_SHARE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1 or not 0 < self.near_equal <= 1 or not 0 <= self.validation_share < 1:
            raise ConfigurationError("eta, near_equal and validation_share are shares between 0 and 1")
        if not 0 <= self.min_reward <= 1:
            raise ConfigurationError(f"a reward is between 0 and 1, not {self.min_reward}: min_reward")
        if self.eta < 1 and not self.general:
            raise ConfigurationError("a share of general instructions needs a file of them: --general FILE")
        if min(self.max_per_task, self.copies, self.max_chars) < 0:
            raise ConfigurationError("max_per_task, copies and max_chars must not be negative")
