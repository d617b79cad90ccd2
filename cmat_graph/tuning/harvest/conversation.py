"""What the readers of episodes hand over: conversations, with a mark on each reply whose worth is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cmat_graph.tuning.dataset import Contrast, Kind, WeightedMessage


@dataclass(slots=True, kw_only=True, eq=False)
class Mark:
    """A reply in a conversation whose worth is known."""

    at: int
    good: bool
    contrast: Contrast | None = None
    """Why it is not good."""
    mended: Mark | None = None
    """The reply that did better, right after it."""
    number: int = -1
    """Its number in the harvest, once it has one."""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """Messages of one episode; those with a weight are targets."""

    messages: list[WeightedMessage]
    tools: list[dict[str, Any]] = field(default_factory=list)
    kind: Kind = "turn"
    steps: int = 1
    """Model calls of the attempt."""
    side: str = ""
    """What a selection must not lose: for verdicts, which way they go."""
    marks: list[Mark] = field(default_factory=list)
