"""What an import is told besides its file."""

from __future__ import annotations

from dataclasses import dataclass

from cmat_graph.errors import ConfigurationError, DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """How foreign records become episodes."""

    run: str = "imported"
    """Label of the episodes."""
    env: str = ""
    """Their environment; empty takes what the records tell, or else the form's name."""
    split: str = "train"
    """Their split. What may be trained on is `train`; an evaluation's traces must bear another name."""
    node: str = ""
    """The seat of every model call; empty takes what the records tell (`langgraph_node`), or else `model`."""
    reward_key: str = ""
    """The score or feedback that is the reward; empty takes the only one there is."""
    reward_scale: float = 1.0
    """The best value of that score."""
    reward: float | None = None
    """Reward of episodes that tell none."""

    def __post_init__(self) -> None:
        if self.reward_scale <= 0:
            raise ConfigurationError("the best value of a score must be above 0: --reward-scale 5")
        if self.reward is not None and not 0 <= self.reward <= 1:
            raise ConfigurationError(f"a reward is between 0 and 1, not {self.reward}")


def pick_reward(scores: dict[str, float], settings: ImportSettings) -> float | None:
    """Return an episode's reward in 0..1 from its scores.

    Raises:
        DatasetError: The score lies outside its scale.

    Example:
        >>> pick_reward({"stars": 4.0}, ImportSettings(reward_scale=5))
        0.8

    """
    key = settings.reward_key or (next(iter(scores)) if len(scores) == 1 else "")
    if key not in scores:
        return settings.reward
    value = scores[key] / settings.reward_scale
    if not 0 <= value <= 1:
        raise DatasetError(f"score {key!r} is {scores[key]:g}, outside 0..{settings.reward_scale:g}; --reward-scale")
    return value
