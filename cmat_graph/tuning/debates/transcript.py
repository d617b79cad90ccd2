"""One recorded debate as the rules see it: who replied what in which round, and which replies hit the consensus."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cmat_graph.answers import AnswerKind, answer_kind
from cmat_graph.tuning.dataset import WeightedMessage
from cmat_graph.tuning.harvest.messages import reply_of, shown
from cmat_graph.types import Episode, Step

DEBATE = "debate"
"""The key of an episode's settings under which a debate notes its own."""
_SEAT = re.compile(r"(generator|critic)-(\d{1,3})")
MOST = 1000
"""Agents of one debate: a damaged recording must not let anybody count to a billion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one agent said in one round."""

    node: str
    agent: int
    round: int
    prompt: list[WeightedMessage]
    """Exactly what it was shown: its own chat so far, with the summaries as they were."""
    message: WeightedMessage
    answer: str | None
    """The final answer in it; None where none can be read."""
    human: bool | None = None
    """Whether a person called it right; None where no person judged it."""


class Transcript:
    """A recorded debate.

    Args:
        episode: As it was recorded: an episode with a step a call, `attempt` being the round.
        kind: How its answers are read and compared.

    """

    def __init__(self, episode: Episode, kind: AnswerKind) -> None:
        self.episode = episode
        self.kind = kind
        self.replies: dict[tuple[int, int], Reply] = {}
        """By agent and round. A call that failed has none; of one that was made again, the last counts."""
        for step in episode.steps:
            if (seat := _SEAT.fullmatch(step.node)) and not step.told.get("error"):
                reply = self._read(step, int(seat[2]))
                self.replies[reply.agent, reply.round] = reply
        self._hits: dict[str, bool] = {}
        told = episode.settings.get(DEBATE)
        spoke = 1 + max((agent for agent, _ in self.replies), default=-1)
        self.agents = max(spoke, _agents(told))
        self.rounds = max((number for _, number in self.replies), default=0)
        """How many were played: fewer than were planned where a debate ended early."""

    def _read(self, step: Step, agent: int) -> Reply:
        judged = [
            verdict["passed"] for verdict in (step.before, step.after) if verdict and verdict["source"] == "human"
        ]
        return Reply(
            node=step.node,
            agent=agent,
            round=step.attempt,
            prompt=[shown(message) for message in step.messages],
            message=reply_of(step),
            answer=self.kind.extract(step.completion),
            human=judged[-1] if judged else None,
        )

    @property
    def consensus(self) -> str:
        """The answer that the vote chose, or a person: the pseudo-label; empty where there is none."""
        return self.episode.answer

    def first(self, agent: int) -> Reply | None:
        """Return an agent's own answer, before it heard of the others'."""
        return self.replies.get((agent, 1))

    def last(self, agent: int) -> Reply | None:
        """Return what an agent said in the last round."""
        return self.replies.get((agent, self.rounds))

    def hits(self, reply: Reply | None) -> bool:
        """Tell whether a reply's answer is the consensus. One that is missing or cannot be read never is."""
        if reply is None or reply.answer is None or not self.consensus:
            return False
        if reply.answer not in self._hits:  # to compare formulas takes its time
            self._hits[reply.answer] = self.kind.same(reply.answer, self.consensus)
        return self._hits[reply.answer]

    @cached_property
    def agreement(self) -> float:
        """Share of all agents whose last answer is the consensus."""
        return sum(self.hits(self.last(agent)) for agent in range(self.agents)) / max(1, self.agents)

    @property
    def judged_by_person(self) -> bool:
        """Whether a person said which replies are right."""
        return any(reply.human is not None for reply in self.replies.values())


def is_debate(episode: Episode) -> bool:
    """Tell whether an episode is one."""
    return isinstance(episode.settings, Mapping) and isinstance(episode.settings.get(DEBATE), Mapping)


def read_kind(episode: Episode, given: str = "") -> AnswerKind | None:
    """Return how the answers of a recorded debate are read; None where nothing tells.

    Args:
        episode: A debate.
        given: The kind to take whatever was recorded; empty for none.

    Raises:
        ConfigurationError: There is no such kind.

    """
    name = given or str(episode.settings[DEBATE].get("kind") or "")
    return answer_kind(name) if name else None


def _agents(told: Any) -> int:
    """Return how many agents there were by what was noted: some may never have spoken."""
    value = told.get("agents") if isinstance(told, Mapping) else 0
    return value if isinstance(value, int) and 0 <= value <= MOST else 0
