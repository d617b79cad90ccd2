"""What an experiment has found about one arm with one seed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How one arm did with one seed."""

    arm: str
    seed: int
    rewards: dict[str, float]
    """Reward of each task, by its id."""
    score: dict[str, float] = field(default_factory=dict)
    """The environment's official metric."""
    stopped: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    """Failed episodes by tag."""
    seconds: float = 0.0
    """How long it took; of an arm that was stopped and went on, its last part."""
    adapter: str = ""
    """Which weights played: `node/name@hash`."""
    general: dict[str, float] = field(default_factory=dict)
    """Where it was asked: general instructions that were followed (1) or not (0), by id."""
