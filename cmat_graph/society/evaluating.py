"""A trained society on questions of your choice, beside its untrained base with as many calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel

from cmat_graph.adapters import AdapterCard
from cmat_graph.answers import answer_kind, vote
from cmat_graph.debate.many import refuse_failed, run_debates
from cmat_graph.debate.prompts import fitting_pack, prompt_pack
from cmat_graph.debate.records import Debate
from cmat_graph.debate.rounds import DebateSettings
from cmat_graph.errors import ConfigurationError, LeakError
from cmat_graph.models import load_model
from cmat_graph.progress import Stages, silent
from cmat_graph.report import Estimate, Table, estimate
from cmat_graph.report.estimates import difference
from cmat_graph.society.loading import Trained, open_society
from cmat_graph.society.team import Seat
from cmat_graph.tuning.dataset import hash_task
from cmat_graph.tuning.distill import tasks_of
from cmat_graph.types import Env, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a society did beside its base."""

    society: Trained
    arms: dict[str, list[float]]
    """1 or 0 of each question, by arm."""
    calls: dict[str, float]
    """Model calls for a question."""
    failed: dict[str, int]
    """Calls that failed, of all questions together; who failed has no answer."""

    @property
    def gain(self) -> Estimate:
        """How much better the society is than the base's vote at equal calls, question by question."""
        return difference([self.arms["society"]], [self.arms["vote"]])

    def to_json(self) -> dict[str, Any]:
        """Return what is printed."""
        return {
            "base": self.society.base,
            "iteration": self.society.iteration,
            "questions": len(self.arms["base"]),
            "arms": {
                name: {**estimate([right]).to_json(), "calls": self.calls[name], "failed": self.failed[name]}
                for name, right in self.arms.items()
            },
            "gain_at_equal_calls": self.gain.to_json(),
        }

    def table(self) -> Table:
        """Return what is shown."""
        titles = {
            "base": "base, one sample",
            "vote": "base, vote at equal calls",
            "debate": "debate of the base",
            "society": f"society after iteration {self.society.iteration}",
        }
        lost = "".join(f"; {count:,} calls failed: {titles[n]}" for n, count in self.failed.items() if count)
        rows = [[titles[n], estimate([right]).percent(), f"{self.calls[n]:.3g}"] for n, right in self.arms.items()]
        return Table(
            columns=["method", "accuracy", "calls"],
            rows=rows,
            title=f"{self.society.base}: {len(self.arms['base'])} questions",
            note=f"the society against the vote at equal calls: {self.gain.points()} points{lost}",
        )


def evaluate_society(
    folder: str | Path,
    *,
    env: Env,
    test: Sequence[Task],
    iteration: int | None = None,
    seed: int = 0,
    stages: Stages | None = None,
) -> Measured:
    """Let a society and its base answer the same questions.

    Args:
        folder: Where the society was trained.
        env: Grades the answers.
        test: The questions.
        iteration: After which iteration; None takes the last.
        seed: Which repetition of the training, and the seed of the draws.
        stages: Shows progress.

    Raises:
        ConfigurationError: There is no such society, or no question.
        LeakError: The society has learned from some of them.
        EngineError: No call succeeded.

    """
    society = open_society(folder, iteration=iteration, seed=seed)
    if not test:
        raise ConfigurationError("there are no questions to measure on; choose another split")
    refuse_learned(society.cards, test)
    fitting_pack(env, test, society.pack)
    told, pack = society.society, prompt_pack(society.pack)
    show = stages or (lambda title: nullcontext(silent))

    def load(card: Seat) -> BaseChatModel:
        drawn = {name: told[name] for name in ("temperature", "top_p", "max_tokens")}
        return load_model(
            society.base, adapter=card.id if card is not None else None, adapters=society.registry, **drawn
        )

    def play(title: str, generators: list[Any], critics: list[Any], rounds: int) -> list[Debate]:
        done = 0

        def count(debate: Debate) -> None:
            nonlocal done
            done += 1
            bar(done, len(test))

        with show(title) as bar:
            played = run_debates(
                test,
                generators=generators,
                critics=critics,
                summariser=load(None),
                pack=pack,
                settings=DebateSettings(rounds=rounds, seed=seed),
                env=env,
                score=True,
                report=count,
            )
        refuse_failed(played, title)
        return played

    def is_right(debate: Debate, number: int) -> float:
        """Grade what the first samples vote for."""
        turns = debate.round(1)[:number]
        answers = [turn.answer for turn in turns]
        speaker = vote(answers, answer_kind(pack.kind), seed=f"{seed}|{number}").speaker(answers)
        return grade(env, debate.task, turns[speaker].reply) if speaker is not None else 0.0

    agents = len(society.team.generators)
    debates = play("Debate of the base", [load(None)] * agents, [load(None)] * agents, told["rounds"])
    equal = max(agents, round(sum(debate.calls for debate in debates) / max(1, len(debates))))
    samples = play("Samples of the base", [load(None)] * equal, [load(None)] * equal, 1)
    team = society.team
    trained = play("The society", [load(c) for c in team.generators], [load(c) for c in team.critics], told["rounds"])
    return Measured(
        society=society,
        arms={
            "base": [is_right(debate, 1) for debate in samples],
            "vote": [is_right(debate, equal) for debate in samples],
            "debate": [debate.reward or 0.0 for debate in debates],
            "society": [debate.reward or 0.0 for debate in trained],
        },
        calls={
            "base": 1.0,
            "vote": float(equal),
            "debate": sum(debate.calls for debate in debates) / len(debates),
            "society": sum(debate.calls for debate in trained) / len(trained),
        },
        failed={
            "base": sum(bool(debate.turns[0].error) for debate in samples),
            "vote": sum(debate.failures for debate in samples),
            "debate": sum(debate.failures for debate in debates),
            "society": sum(debate.failures for debate in trained),
        },
    )


def refuse_learned(cards: Iterable[AdapterCard], test: Sequence[Task]) -> None:
    """Refuse questions that any of some adapters has learned from; ids are those of one file, so texts count.

    Raises:
        LeakError: There are such questions.

    """
    learned = {name for card in cards for name in tasks_of(card)}
    if shared := [task.id for task in test if hash_task(task.prompt) in learned]:
        raise LeakError(
            f"the agents have learned from {len(shared)} of these questions, such as {shared[0]!r}; measure them on "
            "others, such as those of the split 'test'"
        )


def grade(env: Env, task: Task, reply: str) -> float:
    """Return 1 if a reply is right, else 0."""
    session = env.open(task)
    try:
        session.reset()
        session.step(reply)
        return float(session.score() >= 1.0)
    finally:
        session.close()
