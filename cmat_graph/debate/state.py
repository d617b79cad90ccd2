"""The state of a debate graph: messages, and everything of ours under the one key `debate`. JSON-shaped values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from cmat_graph.answers import Vote
from cmat_graph.debate.records import Said, Turn
from cmat_graph.types import Message, StopReason

Next = Literal["summaries", "critics", "vote"]


class Call(TypedDict, total=False):
    """One model call and what came of it: the fields of `Said` or `Turn`."""

    agent: int
    round: int
    messages: list[Message]
    reply: str
    answer: str | None
    summary: str
    error: str
    model: str
    adapter: str
    input_tokens: int
    output_tokens: int
    seconds: float
    told: dict[str, Any]
    key: str
    id: str
    """Under which LangChain streamed the reply."""


class Counted(TypedDict):
    """A vote."""

    answer: str | None
    groups: list[list[int]]
    """Agents by the answer they gave, the winners first."""
    tied: bool
    voters: int
    share: float


class Proceedings(TypedDict, total=False):
    """Everything about one debate."""

    episode: str
    """Id of this debate; also the recorded episode's."""
    question: str
    context: list[Message]
    """What was said before the question."""
    settings: dict[str, Any]
    round: int
    """How many rounds were played."""
    turns: list[Call]
    """By round, then by agent."""
    summaries: list[Call]
    vote: Counted
    """Over the answers of the last round that was played."""
    next: Next
    """Where the moderator leads; edit it to send a forked run elsewhere."""
    answer: str
    """The consensus, normalised; empty while there is none."""
    by: Literal["vote", "human"]
    """Who decided."""
    stopped_early: bool
    stopped: StopReason
    error: str
    """The calls that failed, a line for each."""


def merge(old: Proceedings, new: Proceedings) -> Proceedings:
    """Take over what nodes changed; a new debate begins with nothing of the one before.

    Agents speak at the same time: their turns are put in the order of rounds and agents, whoever came first.
    """
    if "question" in new or not old:
        return new
    merged: Proceedings = {**old, **new}
    for name in ("turns", "summaries"):
        calls = {(call["round"], call["agent"]): call for call in (*old.get(name, ()), *new.get(name, ()))}  # type: ignore[misc]
        merged[name] = [calls[place] for place in sorted(calls)]  # type: ignore[literal-required]
    return merged


class DebateInput(TypedDict, total=False):
    """What a caller gives: messages, of which the last human one is the question."""

    messages: Annotated[list[AnyMessage], add_messages]


class DebateState(DebateInput, total=False):
    """The graph's state, and what a caller gets: the consensus as the last message, and how it came about."""

    debate: Annotated[Proceedings, merge]


class Ask(TypedDict):
    """What one agent is sent."""

    role: str
    agent: int
    round: int
    messages: list[Message]
    seed: int
    summary: str
    episode: str


def to_call(said: Said, id_: str = "") -> Call:
    """Write what was said as the state keeps it."""
    call: Call = {**asdict(said), "id": id_}  # type: ignore[typeddict-item]
    return call


def to_turn(call: Mapping[str, Any]) -> Turn:
    """Read an agent's turn out of the state."""
    return Turn(**{name: value for name, value in call.items() if name != "id"})


def to_said(call: Mapping[str, Any]) -> Said:
    """Read a summary out of the state."""
    return Said(**{name: value for name, value in call.items() if name not in ("id", "answer", "summary")})


def to_counted(vote: Vote) -> Counted:
    """Write a vote as the state keeps it."""
    return {
        "answer": vote.answer,
        "groups": [list(group) for group in vote.groups],
        "tied": vote.tied,
        "voters": vote.voters,
        "share": vote.share,
    }


def to_vote(counted: Counted) -> Vote:
    """Read a vote out of the state."""
    groups = tuple(tuple(group) for group in counted["groups"])
    return Vote(answer=counted["answer"], groups=groups, tied=counted["tied"], voters=counted["voters"])
