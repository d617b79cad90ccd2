"""What a society is, and how it is finetuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cmat_graph.debate.prompts import fitting_pack, prompt_pack
from cmat_graph.debate.rounds import DebateSettings
from cmat_graph.errors import ConfigurationError, LeakError
from cmat_graph.splits import TRAINED_ON
from cmat_graph.tuning.dataset import hash_task
from cmat_graph.tuning.debates import DebateSetSettings
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.types import Env, Task

Start = Literal["previous", "base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SocietySettings:
    """How a society debates, learns and is measured. Unless said otherwise the defaults are the paper's."""

    agents: int = 3
    """Generators, and as many critics: N."""
    rounds: int = 2
    """Rounds of a debate, the generators' included: M."""
    iterations: int = 1
    """How often all agents are finetuned: L. The paper's tables take 1, its curves 5."""
    start: Start = "previous"
    """What finetuning begins from: each agent's own last adapter, or the bare base. (The paper's text leaves it open;
    its code goes on from the previous one.)"""
    temperature: float = 1.0
    top_p: float = 0.9
    max_tokens: int = 256
    """Longest reply."""
    sets: DebateSetSettings = field(default_factory=DebateSetSettings)
    """How debates become training sets."""
    generator: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=2.0))
    """How generators, and single models, are trained; the seed of the run takes the place of the one in it."""
    critic: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=2.0))
    """How critics are trained."""
    preference: TrainSettings = field(
        default_factory=lambda: TrainSettings(objective="dpo", epochs=1.0, learning_rate=2e-4)
    )
    """How agents are trained on pairs of their debates."""
    star_loops: int = 3
    """How often STaR asks, filters and trains; each training begins from the base."""
    equal_calls: int = 0
    """Samples of one model that are voted on, beside a debate; 0 takes as many as that makes calls."""
    measured: int = 100
    """Test questions on which diversity is measured; 0 measures none."""

    def __post_init__(self) -> None:
        if min(self.agents, self.rounds, self.iterations, self.max_tokens, self.star_loops) < 1:
            raise ConfigurationError("agents, rounds, iterations, max_tokens and star_loops are at least 1")
        if not (0 <= self.temperature <= 100 and 0 <= self.top_p <= 1):
            raise ConfigurationError("the temperature is a number in 0..100, and top_p a share: a number in 0..1")
        if min(self.measured, self.equal_calls) < 0:
            raise ConfigurationError("measured and equal_calls are numbers of questions and of samples, or 0")

    @property
    def calls(self) -> int:
        """Model calls of one debate with summaries."""
        critics = (self.rounds - 1) * self.agents
        return self.agents + (2 * critics if self.agents > 1 else critics)

    @property
    def samples(self) -> int:
        """Samples of one model that are voted on."""
        return self.equal_calls or self.calls

    def debate(self, *, seed: int, **changed: Any) -> DebateSettings:
        """Return how one debate goes."""
        return DebateSettings(**{"rounds": self.rounds, "seed": seed} | changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where and on what a society lives.

    Raises:
        ConfigurationError: There are no questions to train on, or none to test on.
        LeakError: A test question is among the training questions.

    """

    folder: Path
    """Everything made lies here. The same call in the same folder goes on where it was stopped."""
    env: Env
    """Grades answers. Its gold is looked at for test questions, by STaR, and to tell how good pseudo-labels are."""
    train: Sequence[Task]
    """Questions to debate and to learn from, without their answers."""
    test: Sequence[Task]
    base: str = "abacus"
    """The model that all agents share: a bundled one, a model folder, or a hub id."""
    pack: str = "arithmetic"
    """The prompts; a name of `debate.prompts.PACKS`."""
    settings: SocietySettings = field(default_factory=SocietySettings)

    def __post_init__(self) -> None:
        prompt_pack(self.pack)
        fitting_pack(self.env, [*self.train, *self.test], self.pack)
        if not self.train or not self.test:
            raise ConfigurationError("a society needs questions to train on and others to test on")
        for tasks in (self.train, self.test):
            if len({task.id for task in tasks}) < len(tasks):
                raise ConfigurationError("two questions have one id; give each its own")
        learned = {name for task in self.train for name in (task.id, hash_task(task.prompt))}
        if shared := [t.id for t in self.test if t.id in learned or hash_task(t.prompt) in learned]:
            raise LeakError(
                f"{len(shared)} test questions are among the training questions, by id or by text, such as "
                f"{shared[0]!r}; leave them out of one side"
            )
        if other := next((task for task in self.train if task.split not in TRAINED_ON), None):
            raise ConfigurationError(
                f"{other.id!r} is of the split {other.split!r}, and a society learns from 'train' alone; "
                "let the file say 'train', or leave such questions out"
            )

    def describe(self) -> dict[str, Any]:
        """Return what makes results belong together: all but how many iterations there are."""
        settings = asdict(replace(self.settings, iterations=1, equal_calls=self.settings.samples))
        for name in ("generator", "critic", "preference"):
            settings[name].pop("seed")
        return {
            "base": self.base,
            "pack": self.pack,
            "env": self.env.name,
            "train": {"questions": len(self.train), "sha256": _hash(self.train)},
            "test": {"questions": len(self.test), "sha256": _hash(self.test)},
            "society": settings,
        }


def _hash(tasks: Sequence[Task]) -> str:
    return hash_task("\n".join(f"{task.id} {hash_task(task.prompt)}" for task in tasks))
