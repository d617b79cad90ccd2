"""When does a debate earn its calls? One answer, the vote at as many calls, and the debate, on the same questions.

Later work found that most of what a debate gains is what its votes gain, so the vote stands beside every figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cmat_graph.debate.many import Report, refuse_failed, run_debates
from cmat_graph.debate.prompts import PromptPack
from cmat_graph.debate.records import Debate
from cmat_graph.debate.rounds import DebateSettings
from cmat_graph.debate.seats import Seats
from cmat_graph.errors import ConfigurationError
from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Env, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to answer, measured."""

    name: str
    n: int
    accuracy: float
    stderr: float
    """The standard error over questions; of right and wrong that is sqrt(p (1 - p) / n)."""
    calls: float
    """Model calls a question; so are tokens and seconds."""
    tokens: float
    seconds: float
    failed: int
    """Calls that failed, of all questions together; who failed has no answer."""
    scores: tuple[float, ...]
    """By question, in their order."""

    def to_json(self) -> dict[str, Any]:
        """Return what scripts read."""
        names = ("name", "n", "accuracy", "stderr", "calls", "tokens", "seconds", "failed")
        return {name: getattr(self, name) for name in names}


def compare_debate(
    tasks: Sequence[Task],
    seats: Seats,
    *,
    env: Env,
    pack: str | PromptPack = "arithmetic",
    settings: DebateSettings = DebateSettings(),
    equal_calls: bool = True,
    traces: TraceStore | None = None,
    run: str = "",
    report: Report | None = None,
    batch: int = 100,
    concurrency: int = 16,
) -> list[Arm]:
    """Measure one call of the base, a vote of the base at as many calls as the debate takes, and the debate.

    Args:
        tasks: The questions.
        seats: The society.
        env: Where the questions are from: its gold scores them.
        pack: The prompts, or their name.
        settings: How the debate goes.
        equal_calls: False leaves the vote out.
        traces: Where to record; the base's answers as a run of their own, whose label ends in `/vote`.
        run: Label of the run in the traces.
        report: Called with each debate and each vote, for progress bars.
        batch: Questions in a slice.
        concurrency: Calls in flight of each model that is not local.

    Raises:
        ConfigurationError: There are no questions, or arguments that cannot work together.
        EngineError: No call succeeded.

    """
    if not tasks:
        raise ConfigurationError("there are no questions to compare on; choose another split")
    common: dict[str, Any] = {
        "pack": pack, "env": env, "traces": traces, "score": True, "report": report, "batch": batch,
        "concurrency": concurrency,
    }  # fmt: skip
    debates = run_debates(
        tasks,
        generators=seats.generators,
        critics=seats.critics,
        summariser=seats.summariser,
        settings=settings,
        run=run,
        **common,
    )
    refuse_failed(debates, run or "debate")
    calls = max(1, round(sum(debate.calls for debate in debates) / len(debates))) if equal_calls else 1
    votes = run_debates(
        tasks,
        generators=seats.base,
        agents=calls,
        settings=replace(settings, rounds=1),
        run=f"{run}/vote" if run else "",
        **common,
    )
    refuse_failed(votes, f"{run}/vote")
    arms = [_one_call(votes, env)]
    if equal_calls:
        arms.append(arm_of(f"vote of {calls}", votes))
    return [*arms, arm_of("debate", debates)]


def arm_of(name: str, debates: Sequence[Debate]) -> Arm:
    """Measure debates that were scored."""
    return _arm(name, debates, [debate.reward or 0.0 for debate in debates], sum(debate.calls for debate in debates))


def _one_call(votes: Sequence[Debate], env: Env) -> Arm:
    """Measure what one call is worth: the mean over all that were made, which is surer than any one of them."""
    scores, tries = [], 0
    for debate in votes:
        session = env.open(debate.task)
        try:
            got = []
            for turn in debate.turns:
                session.reset()
                if turn.answer is not None:
                    session.step(turn.reply)
                got.append(session.score() if turn.answer is not None else 0.0)
        finally:
            session.close()
        scores.append(sum(got) / len(got))
        tries += len(got)
    arm = _arm("one call", votes, scores, tries)
    share = len(votes) / tries
    return replace(arm, calls=1.0, tokens=arm.tokens * share, seconds=arm.seconds * share)


def _arm(name: str, debates: Sequence[Debate], scores: Sequence[float], calls: int) -> Arm:
    n = len(debates)
    mean = sum(scores) / n
    return Arm(
        name=name,
        n=n,
        accuracy=mean,
        stderr=math.sqrt(sum((score - mean) ** 2 for score in scores)) / n,
        calls=calls / n,
        tokens=sum(debate.tokens for debate in debates) / n,
        seconds=sum(debate.seconds for debate in debates) / n,
        failed=sum(debate.failures for debate in debates),
        scores=tuple(scores),
    )
