"""Where a society is made: one folder with its debates, data sets, adapters and scores. Nothing in it is done twice.

DIR/traces.db       debates on training questions, a run for each iteration of each method and seed
DIR/heldout.db      debates on test questions
DIR/data/           training sets
DIR/adapters/       the registry: a LoRA for each agent, method, seed and iteration, all on one base
DIR/arms/           what each method came to (`Score`)
"""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_core.language_models import BaseChatModel

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.answers import answer_kind, vote
from cmat_graph.bases import resolve_base
from cmat_graph.debate.many import refuse_failed, run_debates
from cmat_graph.debate.prompts import PromptPack, prompt_pack
from cmat_graph.debate.records import Debate, Turn
from cmat_graph.errors import ConfigurationError, UnsupportedAdapterError
from cmat_graph.models import load_model
from cmat_graph.progress import Stages, silent
from cmat_graph.records import Records
from cmat_graph.society.evaluating import grade
from cmat_graph.society.score import Score
from cmat_graph.society.settings import Setup
from cmat_graph.society.team import Seat, Team
from cmat_graph.traces.sql import SQLTraceStore
from cmat_graph.tuning import distill
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.types import Task

KIND = "society"


class Workshop:
    """Debate, train and measure; what is done is read back.

    Args:
        setup: Where, and on what.
        stages: Shows progress; None shows none.

    Raises:
        ConfigurationError: The folder holds another society, or another process is at it.

    """

    def __init__(self, setup: Setup, *, stages: Stages | None = None) -> None:
        self.setup, self.settings = setup, setup.settings
        self.stages: Stages = stages or (lambda title: nullcontext(silent))
        self.pack = prompt_pack(setup.pack)
        self.kind = answer_kind(self.pack.kind)
        resolve_base(setup.base)  # before the folder is given to a society that cannot be
        setup.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            lock = opened.enter_context((setup.folder / ".lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process gives it back
            except OSError as exc:
                raise ConfigurationError(
                    f"another process is at {setup.folder}; wait for it, or give another --out"
                ) from exc
            self.scores = Records(setup.folder, kind=KIND, settings=setup.describe(), record=Score)
            self.registry = AdapterRegistry(setup.folder / "adapters")
            self.traces, self.heldout = (
                opened.enter_context(closing(SQLTraceStore(f"sqlite:///{setup.folder / name}.db")))
                for name in ("traces", "heldout")
            )
            self._open = opened.pop_all()
        self._models: dict[tuple[Any, ...], BaseChatModel] = {}
        self._gold: dict[tuple[str, str], bool] = {}

    def __enter__(self) -> Self:
        """Return the workshop."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        """Close what is open."""
        self._open.close()

    # -- debates ------------------------------------------------------------------------------------------------

    def label(
        self, run: str, team: Team, *, seed: int, tasks: Sequence[Task] | None = None, **how: Any
    ) -> list[Debate]:
        """Debate the training questions; their consensus is the label."""
        return self._play(self.setup.train if tasks is None else tasks, team, self.traces, run, seed=seed, **how)

    def test(self, run: str, team: Team, *, seed: int, **how: Any) -> list[Debate]:
        """Debate the test questions; their traces tell which answers were right."""
        return self._play(self.setup.test, team, self.heldout, run, seed=seed, score=True, **how)

    def _play(
        self,
        tasks: Sequence[Task],
        team: Team,
        traces: SQLTraceStore,
        run: str,
        *,
        seed: int,
        temperature: float | None = None,
        pack: PromptPack | None = None,
        score: bool = False,
        **how: Any,
    ) -> list[Debate]:
        settings = self.settings.debate(seed=seed, **how)
        done = 0

        def count(debate: Debate) -> None:
            nonlocal done
            done += 1
            show(done, len(tasks))

        with self.stages(f"{'Test' if score else 'Label'}: {run}") as show:
            debates = run_debates(
                tasks,
                generators=[self.model(card, temperature) for card in team.generators],
                critics=[self.model(card, temperature) for card in team.critics],
                summariser=self.model(None),  # the frozen base, whatever the agents' temperature
                pack=pack or self.pack,
                settings=settings,
                env=self.setup.env,
                traces=traces,
                run=run,
                score=score,
                report=count,
            )
        refuse_failed(debates, run)
        return debates

    def model(self, card: Seat, temperature: float | None = None) -> BaseChatModel:
        """Return what speaks with an adapter; all share the base's weights."""
        settings = self.settings
        warmth = settings.temperature if temperature is None else temperature
        key = (card.key if card is not None else "", warmth)
        if key not in self._models:
            self._models[key] = load_model(
                self.setup.base,
                adapter=card.id if card is not None else None,
                adapters=self.registry,
                temperature=warmth,
                top_p=settings.top_p,
                max_tokens=settings.max_tokens,
            )
        return self._models[key]

    # -- gold ---------------------------------------------------------------------------------------------------

    def is_right(self, task: Task, reply: str) -> bool:
        """Tell by the environment whether a reply is right; none, or one that cannot be read, is wrong."""
        if not reply:
            return False
        key = (task.id, reply)
        if key not in self._gold:
            self._gold[key] = grade(self.setup.env, task, reply) >= 1.0
        return self._gold[key]

    def voted(self, debate: Debate, turns: Sequence[Turn]) -> str:
        """Return the first reply of those that some turns of a debate vote for."""
        answers = [turn.answer for turn in turns]
        seed = f"{debate.settings['debate']['seed']}|{len(turns)}"
        speaker = vote(answers, self.kind, seed=seed).speaker(answers)
        return turns[speaker].reply if speaker is not None else ""

    # -- training -----------------------------------------------------------------------------------------------

    def train(
        self, node: str, name: str, dataset: Path, *, settings: TrainSettings, seed: int, init: Seat = None
    ) -> AdapterCard:
        """Train an adapter on a set, unless there is one of this name.

        Args:
            node: Its seat.
            name: Its name.
            dataset: What it learns.
            settings: How.
            seed: Of this agent alone: agents of equal data still differ.
            init: The adapter to go on from.

        """
        if (known := self.registry.find(node, name)) is not None:
            return known
        before = init if init is not None and self.settings.start == "previous" else None
        with self.stages(f"Train: {node}/{name}") as show:
            return distill(
                None,
                self.registry,
                node=node,
                base=self.setup.base,
                name=name,
                dataset=dataset,
                init=before,
                settings=replace(settings, seed=seed % 2**32),  # NumPy takes no larger one
                held_out=self.setup.test,
                progress=lambda step, steps, loss: show(step, steps, f"loss {loss:.3f}" if loss else ""),
            )

    def diversity(self, run: str, team: Team, *, seed: int) -> dict[str, Any]:
        """Measure how different the agents are on some of the test questions.

        Empty where that is switched off; why, where the agents are no LoRA and cannot be read in turns on one base.
        """
        if not self.settings.measured:
            return {}
        measure = import_module("cmat_graph.diversity").measure_diversity  # torch lives there
        with self.stages(f"Diversity: {run}") as show:
            show(0, 1)
            try:
                found = measure(
                    self.heldout,
                    run=run,
                    base=self.setup.base,
                    generators=team.generators,
                    critics=team.critics,
                    limit=self.settings.measured,
                    seed=seed,
                )
            except UnsupportedAdapterError as exc:  # hours of debates and training must not end here
                return {"none": str(exc)}
            show(1, 1)
        told: dict[str, Any] = found.to_json()
        return {name: value for name, value in told.items() if name not in ("definitions", "models", "run", "base")}

    # -- scores -------------------------------------------------------------------------------------------------

    def measure(self, arm: str, seed: int, make: Callable[[], tuple[list[Debate], Mapping[str, Any]]]) -> Score:
        """Return how an arm did; play it unless that is recorded.

        Args:
            arm: Its name.
            seed: Which repetition.
            make: Plays it; returns the debates on the test questions, and what else to keep of it.

        """
        if (known := self.scores.read(arm, seed)) is not None:
            return known
        debates, told = make()
        return self.keep(arm, seed, debates, **told)

    def keep(
        self,
        arm: str,
        seed: int,
        debates: Sequence[Debate],
        *,
        counts: Callable[[Debate], str] = lambda debate: debate.reply,
        calls: float | None = None,
        tokens: float | None = None,
        seconds: float | None = None,
        failed: int | None = None,
        **told: Any,
    ) -> Score:
        """Grade debates on the test questions and record what they came to.

        Args:
            arm: Its name.
            seed: Which repetition.
            debates: What was played.
            counts: Which reply counts; by default the vote's.
            calls: Model calls a question, where only a part of the debates counts.
            tokens: Likewise.
            seconds: Likewise, of all questions. They are those that the calls took when they were made: debates that
                another arm or an earlier run played took as long.
            failed: Calls that failed, likewise.
            **told: What else to keep.

        """
        count = max(1, len(debates))
        score = Score(
            arm=arm,
            seed=seed,
            correct={debate.task.id: float(self.is_right(debate.task, counts(debate))) for debate in debates},
            calls=sum(debate.calls for debate in debates) / count if calls is None else calls,
            tokens=round(sum(debate.tokens for debate in debates) / count if tokens is None else tokens, 1),
            seconds=round(sum(debate.seconds for debate in debates) if seconds is None else seconds, 1),
            failed=sum(debate.failures for debate in debates) if failed is None else failed,
            **told,
        )
        return self.scores.write(score)


def seed_of(seed: int, *purpose: object) -> int:
    """Return a seed for one purpose: the same in every process, another for each purpose."""
    return seed * 1_000_003 + zlib.crc32("/".join(map(str, purpose)).encode())


def left_out(card: AdapterCard) -> int:
    """Return how many rows of its set an adapter did not learn, because they are too long."""
    names = ("rows left out: too long", "targets left out: too long")
    return sum(card.counts.get(name, 0) for name in names)
