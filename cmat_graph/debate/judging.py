"""A person decides a debate, and what that says about each turn: preferences to learn from."""

from __future__ import annotations

from dataclasses import replace

from langgraph.runtime import get_runtime
from langgraph.types import interrupt
from pydantic import BaseModel, Field

from cmat_graph.debate.records import Debate
from cmat_graph.debate.rounds import Rules
from cmat_graph.errors import ConfigurationError
from cmat_graph.nodes.attempt import judgement
from cmat_graph.traces.recorder import Recorder


class Choice(BaseModel):
    """What a person says at the vote; `{"reason": "Right."}`, with neither agent nor answer, lets it stand."""

    agent: int | None = Field(default=None, description="The agent, from 0, whose last answer is right.")
    answer: str | None = Field(default=None, description="The right answer, where no agent gave it.")
    reason: str = Field(default="", description="Kept with the verdicts.")

    def doubt(self, debate: Debate) -> str:
        """Say why a debate cannot be decided so; empty where it can."""
        last = debate.round(debate.rounds)
        if self._own or self.agent is None:
            return ""
        if not 0 <= self.agent < len(last):
            return f"There is no agent {self.agent}; give one of 0 to {len(last) - 1}."
        if last[self.agent].answer is None:
            return f"Agent {self.agent} gave no answer that can be read; give the answer itself."
        return ""

    def take(self, debate: Debate, rules: Rules) -> Debate:
        """Return the debate as it was decided; there is no `doubt`."""
        if self._own:
            return replace(debate, chosen=rules.read(self._own) or self._own)
        return debate if self.agent is None else replace(debate, chosen=debate.round(debate.rounds)[self.agent].answer)

    @property
    def _own(self) -> str:
        return (self.answer or "").strip()


def ask_person(debate: Debate) -> Choice:
    """Wait until a person has decided; a choice that cannot be is asked for again, with the `problem`.

    Raises:
        ConfigurationError: The run could not wait anywhere.

    """
    info = get_runtime().execution_info
    if info is None or info.thread_id is None:
        raise ConfigurationError(
            "a person decides, so the run must be able to wait: compile(checkpointer=InMemorySaver()), and invoke "
            'with config={"configurable": {"thread_id": "1"}}'
        )
    request = {
        "kind": "vote",
        "question": debate.task.prompt,
        "answer": debate.answer,
        "share": debate.vote.share,
        "solutions": [
            {"agent": turn.agent, "answer": turn.answer, "reply": turn.reply, "error": turn.error}
            for turn in debate.round(debate.rounds)
        ],
    }
    choice: Choice = interrupt(request, response_schema=Choice)
    while problem := choice.doubt(debate):
        choice = interrupt(request | {"problem": problem}, response_schema=Choice)
    return choice


def record_choice(debate: Debate, choice: Choice, rules: Rules, recorder: Recorder | None) -> None:
    """Record a verdict on each turn: a person approved it where it gives the answer that was decided on."""
    if recorder is None:
        return
    for turn in debate.turns:
        if not turn.key:
            continue
        right = turn.answer is not None and bool(debate.answer) and rules.kind.same(turn.answer, debate.answer)
        verdict = judgement(
            "after",
            "approve" if right else "revise",
            source="human",
            category="ok" if right else "wrong",
            reason=choice.reason,
            hint="" if right else debate.answer,
        )
        recorder.verdict(turn.key, verdict)
