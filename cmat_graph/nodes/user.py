"""The User: states the task, recalls what is known about tasks like it, and never solves."""

from __future__ import annotations

from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.reflections import recall
from cmat_graph.state import CmatState, Node, RunContext, context_of


def make_user(store: BaseStore | None = None) -> Node:
    """Build the node that opens an episode."""

    def user(state: CmatState, runtime: Runtime[RunContext]) -> CmatState:
        context = context_of(runtime)
        task = _read_task(state)
        memory = store or runtime.store
        lessons = recall(memory, env=context.env, node="assistant", task=task) if memory else []
        if context.session is not None:
            context.session.reset()
        return {"task": task, "lessons": lessons, **begin_attempt(1), "stopped": "running"}

    return user


def begin_attempt(number: int) -> CmatState:
    """Return the state in which an attempt starts."""
    return {
        "attempt": number,
        "trajectory": [],
        "round": 0,
        "revisions": 0,
        "draft": None,
        "forced": False,
        "step_id": 0,
        "doubted": "",
        "flaw": "",
        "done_so_far": [],
        "observation": "",
        "done": False,
        "answer": "",
    }


def _read_task(state: CmatState) -> str:
    for message in reversed(state.get("messages", [])):
        if isinstance(message, HumanMessage):
            return str(message.text)
    raise ConfigurationError('no task: invoke the graph with {"messages": [("user", "the task")]}')
