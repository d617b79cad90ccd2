"""One debate as a story: it says what is asked next, is told what came of it, and ends with a vote."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import cast

from cmat_graph.answers import Vote
from cmat_graph.debate.asking import Answered, Asked, said
from cmat_graph.debate.records import Said, Turn
from cmat_graph.debate.rounds import Rules
from cmat_graph.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What was said in a debate, and the vote."""

    turns: tuple[Turn, ...]
    summaries: tuple[Said, ...]
    vote: Vote
    stopped_early: bool


Play = Generator[list[Asked], list[Answered], Played]


def play(rules: Rules, question: str, context: Sequence[Message] = ()) -> Play:
    """Play one debate: yield what is asked at once, and take the answers in the same order."""
    asked = openings(rules, question, context)
    turns = _turns(rules, asked, (yield asked))
    summaries: list[Said] = []
    last = turns
    while not rules.ends(last, counted := rules.tally(question, last)):
        asked = summarisings(rules, question, last)
        made = [said(rules, each, reply) for each, reply in zip(asked, (yield asked), strict=True)] if asked else []
        summaries += made
        shown = {each.agent: each for each in made}
        asked = [criticising(rules, question, turns, i, shown.get(i), context) for i in range(rules.agents)]
        last = _turns(rules, asked, (yield asked))
        turns = [*turns, *last]
    early = last[-1].round < rules.settings.rounds and rules.unanimous(counted)
    return Played(turns=tuple(turns), summaries=tuple(summaries), vote=counted, stopped_early=early)


def openings(rules: Rules, question: str, context: Sequence[Message] = ()) -> list[Asked]:
    """Say what the generators are asked."""
    return [
        _asked(rules, question, "generator", i, 1, rules.opening(question, i, context)) for i in range(rules.agents)
    ]


def summarisings(rules: Rules, question: str, last: Sequence[Turn]) -> list[Asked]:
    """Say what the summariser is asked after a round, for each agent that has others to hear of."""
    prompts = [(i, rules.summarising(last, i)) for i in range(rules.agents)]
    round_ = last[-1].round + 1
    return [_asked(rules, question, "summary", i, round_, prompt) for i, prompt in prompts if prompt is not None]


def criticising(
    rules: Rules,
    question: str,
    turns: Sequence[Turn],
    agent: int,
    summary: Said | None,
    context: Sequence[Message] = (),
) -> Asked:
    """Say what a critic is asked after a round."""
    prompt, shown = rules.criticising(question, turns, agent, summary, context)
    return _asked(rules, question, "critic", agent, turns[-1].round + 1, prompt, shown)


def _asked(
    rules: Rules, question: str, role: str, agent: int, round_: int, prompt: list[Message], shown: str = ""
) -> Asked:
    seed = rules.seed_of(question, f"{role}-{agent}", round_)
    return Asked(role=role, agent=agent, round=round_, messages=prompt, seed=seed, summary=shown)


def _turns(rules: Rules, asked: Sequence[Asked], replies: Sequence[Answered]) -> list[Turn]:
    return [cast("Turn", said(rules, each, reply)) for each, reply in zip(asked, replies, strict=True)]
