"""Approve: a person looks at each action before it runs. The run waits, for days if need be, in its checkpoint."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from langgraph.types import interrupt
from pydantic import BaseModel, Field

from cmat_graph.errors import ConfigurationError
from cmat_graph.nodes.attempt import Limits, announce, fail, judgement, send_back
from cmat_graph.nodes.calling import show
from cmat_graph.nodes.seat import Flow, Node, Turn
from cmat_graph.types import Message


class Approval(BaseModel):
    """What a person answers when an action waits for approval."""

    decision: Literal["approve", "revise", "reject"] = Field(
        description="approve lets the action run, revise sends it back, reject ends the attempt."
    )
    reason: str = Field(default="", description="Shown to the assistant when the action is not approved.")
    action: str | None = Field(default=None, description="Runs in place of the assistant's text action.")


Answer = TypeVar("Answer", bound=BaseModel)


def ask_person(turn: Turn, request: dict[str, Any], schema: type[Answer]) -> Answer:
    """Wait until a person answers, in this shape.

    Raises:
        ConfigurationError: The run could not wait anywhere.
    """
    info = turn.runtime.execution_info
    if info is None or info.thread_id is None:
        raise ConfigurationError(
            "a person takes part, so the run must be able to wait: compile(checkpointer=InMemorySaver()), and invoke "
            'with config={"configurable": {"thread_id": "1"}}'
        )
    answer: Answer = interrupt(request, response_schema=schema)
    return answer


def make_approve(*, limits: Limits) -> Node:
    """Build the node that asks a person."""

    def approve(turn: Turn) -> Flow:
        draft = turn.loop["draft"]
        assert draft is not None
        request = {
            "kind": "approval",
            "task": turn.loop["task"],
            "action": show(draft),
            "verdict": turn.loop.get("verdict"),
        }
        answer = ask_person(turn, request, Approval)
        verdict = judgement(
            "before",
            answer.decision,
            source="human",
            category="ok" if answer.decision == "approve" else "other",
            reason=answer.reason,
        )
        announce(turn, verdict)
        if answer.decision == "revise":
            return send_back(turn, verdict, voice="A person")
        if answer.decision == "reject":
            return (yield from fail(turn, verdict, limits))
        if answer.action is None or draft.get("tool_calls"):
            return {"cmat": {"verdict": verdict, "next": "execute"}}
        edited: Message = {**draft, "content": answer.action}
        trajectory = [*turn.loop["trajectory"][:-1], edited]
        return {"cmat": {"verdict": verdict, "draft": edited, "trajectory": trajectory, "next": "execute"}}

    return approve
