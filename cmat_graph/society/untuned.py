"""What is finetuned by nobody: one sample, votes, and debates of the bare base."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from cmat_graph.debate.records import Debate
from cmat_graph.society.score import Score
from cmat_graph.society.team import Team
from cmat_graph.society.workshop import Workshop, seed_of


def samples(w: Workshop, seed: int, iterations: int = 1) -> Iterator[Score]:
    """Play `base`, `majority`, `vote_plain` and `vote`: one sample, N voted, as many as a debate makes calls.

    `vote_plain` has as many as a debate without summaries.
    All are counted from the same samples; the first N are those that the debates of this seed begin with.
    """
    agents, many = w.settings.agents, max(w.settings.samples, w.settings.agents)
    arms = {"base": 1, "majority": agents, "vote_plain": min(agents * w.settings.rounds, many), "vote": many}
    known = {arm: w.scores.read(arm, seed) for arm in arms}
    if None in known.values():
        debates = w.test(f"seed-{seed}/vote", Team.of_one(None, many), seed=seed_of(seed, "test"), rounds=1)
        for arm, number in arms.items():
            known[arm] = keep_samples(w, arm, seed, debates, number)
    yield from (score for score in known.values() if score is not None)


def keep_samples(w: Workshop, arm: str, seed: int, debates: list[Debate], number: int, **told: Any) -> Score:
    """Record what the first samples of each debate vote for."""
    spoken = [debate.round(1)[:number] for debate in debates]
    tokens = sum(turn.input_tokens + turn.output_tokens for turns in spoken for turn in turns)
    seconds = sum(turn.seconds for turns in spoken for turn in turns)
    failed = sum(bool(turn.error) for turns in spoken for turn in turns)

    def counts(debate: Debate) -> str:
        return w.voted(debate, debate.round(1)[:number])

    return w.keep(
        arm,
        seed,
        debates,
        counts=counts,
        calls=float(number),
        tokens=tokens / max(1, len(debates)),
        seconds=seconds,
        failed=failed,
        **told,
    )


def debate(w: Workshop, seed: int, iterations: int = 1, *, arm: str = "debate", **how: Any) -> Iterator[Score]:
    """Play a debate of the bare base.

    Args:
        w: Where.
        seed: Which repetition.
        iterations: Changes nothing here.
        arm: Its name.
        **how: What is other than usual: fields of `DebateSettings`.

    """
    team = Team.of_one(None, w.settings.agents)
    run = f"seed-{seed}/{arm}"

    def play() -> tuple[list[Debate], dict[str, Any]]:
        debates = w.test(run, team, seed=seed_of(seed, "test"), **how)
        return debates, {"diversity": w.diversity(run, team, seed=seed)}

    yield w.measure(arm, seed, play)


cooperate = partial(debate, arm="cooperate", mode="cooperate")
identity = partial(debate, arm="unique_id", mode="identity")
