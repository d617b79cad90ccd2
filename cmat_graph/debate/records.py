"""What a debate leaves behind: who said what in which round, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cmat_graph.answers import Vote
from cmat_graph.types import Message, Task

Role = Literal["generator", "critic", "summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One model call of a debate and what came of it."""

    agent: int
    """Who spoke, from 0; of a summary: for whom it was made."""
    round: int
    """From 1. A summary is of the round that it was made for."""
    messages: list[Message]
    """The exact prompt."""
    reply: str
    error: str = ""
    """Why there is no reply; empty when there is one."""
    model: str = ""
    adapter: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    """Of a call that was answered together with others: its share of their time."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the model told about its reply besides; see `types.Step.told`."""
    key: str = ""
    """Trace key of the call; empty when it was not recorded."""

    @property
    def role(self) -> Role:
        """Which seat spoke."""
        return "summary"

    @property
    def node(self) -> str:
        """The seat's name in the graph and in the traces, such as `critic-0`."""
        return f"{self.role}-{self.agent}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Said):
    """What one agent said in one round."""

    answer: str | None
    """Its final answer, normalised; None where it could not be read, or there is no reply."""
    summary: str = ""
    """The others' solutions, as the agent was shown them in one; empty where it was shown none."""

    @property
    def role(self) -> Role:
        """Generators speak in the first round, critics in all others."""
        return "generator" if self.round == 1 else "critic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Debate:
    """One question, played to its end."""

    task: Task
    turns: tuple[Turn, ...]
    """By round, then by agent."""
    summaries: tuple[Said, ...] = ()
    """The calls made for summaries, in the same order."""
    vote: Vote
    """Over the last round's answers, by agent."""
    stopped_early: bool = False
    """Whether all agreed before the last round that was allowed."""
    chosen: str | None = None
    """The answer that a person gave in place of the vote's."""
    reward: float | None = None
    """What the environment says to the answer, where it was scored."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was played, as it is recorded with the episode."""
    episode: str = ""
    """Id of the recorded episode; empty when nothing was recorded."""

    @property
    def rounds(self) -> int:
        """How many rounds were played."""
        return self.turns[-1].round if self.turns else 0

    @property
    def answer(self) -> str:
        """The consensus, normalised; empty when no answer could be read."""
        return (self.vote.answer or "") if self.chosen is None else self.chosen

    @property
    def reply(self) -> str:
        """The first reply of the last round that gave the consensus; empty when there is none."""
        return next((turn.reply for turn in self.round(self.rounds) if self.answer and turn.answer == self.answer), "")

    @property
    def failed(self) -> bool:
        """Whether nobody could speak in the last round."""
        return all(turn.error for turn in self.round(self.rounds))

    @property
    def calls(self) -> int:
        """Model calls, those that failed too."""
        return len(self.turns) + len(self.summaries)

    @property
    def failures(self) -> int:
        """Calls that failed."""
        return sum(bool(said.error) for said in (*self.turns, *self.summaries))

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return sum(said.input_tokens + said.output_tokens for said in (*self.turns, *self.summaries))

    @property
    def seconds(self) -> float:
        """Time in models."""
        return sum(said.seconds for said in (*self.turns, *self.summaries))

    def round(self, number: int) -> tuple[Turn, ...]:
        """Return the turns of one round, by agent."""
        return tuple(turn for turn in self.turns if turn.round == number)

    def to_json(self) -> dict[str, Any]:
        """Return what scripts read: the consensus, what it took, and who said what."""
        turn = ("node", "round", "answer", "reply", "error")
        return {
            "answer": self.answer,
            "share": self.vote.share,
            "tied": self.vote.tied,
            "rounds": self.rounds,
            "calls": self.calls,
            "tokens": self.tokens,
            "turns": [{name: getattr(each, name) for name in turn} for each in self.turns],
            "summaries": [{name: getattr(e, name) for name in turn if name != "answer"} for e in self.summaries],
        }
