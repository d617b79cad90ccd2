"""How an improvement goes about its rounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cmat_graph.errors import ConfigurationError
from cmat_graph.paired import ALPHA
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.sources import NODES, HarvestSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ImproveSettings:
    """Rounds of collecting, training and gating.

    With its defaults and no teacher it is STaR (Zelikman et al. 2022): learn from one's own successes, beginning from
    the base each round.
    """

    rounds: int = 3
    nodes: tuple[str, ...] = ("assistant",)
    """The seats that are trained, in turn."""
    samples: int = 4
    """Plays of a task in one round at most: the first without chance, the others drawn, until one succeeds."""
    temperature: float = 0.8
    """Of the plays that are drawn."""
    attempts: int = 2
    """Attempts within one play: the loop's own retry, told by the reward that the first one failed."""
    tasks: int = 0
    """Training tasks of a round at most; 0 takes all."""
    start: Literal["base", "previous"] = "base"
    """What each training begins from: the bare base, or the adapter that is promoted."""
    data: Literal["all", "round"] = "all"
    """Whose episodes each training takes: those of all rounds so far, or of its own alone."""
    alpha: float = ALPHA
    """The chance that the gate promotes an adapter which is no better."""
    seed: int = 0
    harvest: HarvestSettings = field(default_factory=HarvestSettings)
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if min(self.rounds, self.samples, self.attempts) < 1 or self.tasks < 0:
            raise ConfigurationError("rounds, samples and attempts are at least 1, and tasks at least 0")
        if not self.nodes or (unknown := set(self.nodes) - set(NODES)):
            known = ", ".join(NODES)
            raise ConfigurationError(f"no node {min(unknown) if self.nodes else ''!r} to improve; known: {known}")
        if self.temperature <= 0 and self.samples > 1:
            raise ConfigurationError("several plays of a task need a temperature above 0, or they are all the same")
        if not 0 < self.alpha < 1:
            raise ConfigurationError(f"alpha is a chance between 0 and 1, not {self.alpha:g}")
        if self.train.objective != "sft" and self.start == "base":
            raise ConfigurationError(
                f"{self.train.objective} sharpens what a model can do already: let it begin from the promoted adapter "
                "(--start previous)"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what must stay the same while an improvement goes on; it may get more rounds."""
        return {name: value for name, value in asdict(self).items() if name != "rounds"}
