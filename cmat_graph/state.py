"""What changes during a run (`CmatState`) and what stays for one run (`RunContext`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from pydantic import ConfigDict
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from cmat_graph.traces.recorder import Recorder
from cmat_graph.types import Message, Session, StopReason, Verdict


class CmatInput(TypedDict, total=False):
    """What a caller gives: messages, of which the last human one is the task."""

    messages: Annotated[list[AnyMessage], add_messages]


class CmatState(CmatInput, total=False):
    """The graph's state. JSON-shaped values only, so that every checkpointer can keep it."""

    task: str
    lessons: list[str]
    """What long-term memory and earlier attempts teach about this task."""
    trajectory: list[Message]
    """Short-term memory: the turns of this attempt after the task, oldest first."""
    attempt: int
    """Which attempt this is, from 1."""
    round: int
    """Actions carried out in this attempt."""
    revisions: int
    """Times the checker sent the current action back."""
    draft: str | None
    """The assistant's reply that waits to be checked and carried out; None when there is none."""
    forced: bool
    """True when the action runs although the checker never approved it."""
    step_id: int
    """Trace id of the model call that wrote the draft."""
    doubted: str
    """The draft that the checker doubted without being certain; repeating it is insisting."""
    flaw: str
    """What went wrong last and was not mended since; an attempt that ends with one has failed."""
    done_so_far: list[list[str]]
    """Each action of this attempt with what came of it, to notice when nothing new happens."""
    verdict: Verdict
    observation: str
    done: bool
    """True when the attempt is over."""
    answer: str
    stopped: StopReason


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What lives as long as one run: pass it as `context=` to `invoke`."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    session: SkipJsonSchema[Session | None] = None
    """The task's environment; without one, the assistant's reply is the answer."""
    env: str = ""
    """Name of the environment, part of the lessons' namespace."""
    rules: str = ""
    """What the environment allows and how actions are written; part of the assistant's system prompt."""
    max_rounds: int = 15
    """Actions allowed in one attempt."""
    recorder: SkipJsonSchema[Recorder | None] = None
    """Where the run is recorded."""
    freeze_memory: bool = False
    """True keeps new lessons out of the long-term store, so that no test task teaches another."""


class Node(Protocol):
    """A seat of the graph: reads the state, returns what changes."""

    def __call__(self, state: CmatState, runtime: Runtime[RunContext]) -> CmatState:
        """Run the node once."""


def context_of(runtime: Runtime[RunContext]) -> RunContext:
    """Return the run's context; LangGraph gives None when the caller passed nothing."""
    return runtime.context or RunContext()
