"""LangGraph's own kinds of tools: those that read the state, answer with a command, or ask a person."""

from __future__ import annotations

from typing import Annotated

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import InjectedState
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt
from sculptures import script

from cmat_graph import create_cmat_graph
from cmat_graph.traces import Recorder, SQLTraceStore
from cmat_graph.types import Task

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()


@tool
def first_words(state: Annotated[dict, InjectedState]) -> str:
    """Read the conversation."""
    return str(state["messages"][0].text)


@tool
def command(call_id: Annotated[str, InjectedToolCallId]) -> Command:
    """Answer with a command."""
    return Command(update={"messages": [ToolMessage("by command", tool_call_id=call_id)]})


@tool
def confirm() -> str:
    """Ask a person."""
    RAN.append("asked")
    return f"{interrupt('Sure?')}, {interrupt('Really?')}"


def calls(*names):
    given = [{"name": name, "args": {}, "id": name, "type": "tool_call"} for name in names]
    return AIMessage("", tool_calls=given)


def seen(model):
    return {message.tool_call_id: message.text for message in model.calls[1] if isinstance(message, ToolMessage)}


@pytest.mark.parametrize("checker", [None, "probes", script("approve")])
def test_tools_that_know_the_graph(checker):
    model = script(calls("first_words", "command"), "Done.")
    graph = create_cmat_graph(model, tools=[first_words, command], checker=checker, max_attempts=1).compile()
    state = graph.invoke({"messages": [("user", "Double 21.")]})
    assert seen(model) == {"first_words": "Double 21.", "command": "by command"}
    assert state["cmat"]["stopped"] == "passed"


@pytest.mark.parametrize("marks", ["nowhere", "in the traces", "in the store"])
def test_a_tool_may_ask_a_person(marks):
    model = script(calls("confirm"), "Done.")
    graph = create_cmat_graph(model, tools=[confirm]).compile(
        checkpointer=InMemorySaver(), store=InMemoryStore() if marks == "in the store" else None
    )
    thread = {"configurable": {"thread_id": "1"}}
    if marks == "in the traces":
        thread["callbacks"] = [Recorder(SQLTraceStore("sqlite://"), task=Task(id="1", prompt="Go."))]
    for question in ("Sure?", "Really?"):
        asked = graph.invoke(Command(resume="yes") if RAN else {"messages": [("user", "Go.")]}, thread)
        assert asked["__interrupt__"][0].value == question
    state = graph.invoke(Command(resume="do"), thread)
    assert (seen(model), state["cmat"]["stopped"]) == ({"confirm": "yes, do"}, "passed")


@tool(return_direct=True)
def weigh() -> str:
    """Weigh it."""
    return "3 kg"


def weigh_directly():
    graph = create_cmat_graph(create_agent(script(calls("weigh")), [weigh]), checker="probes", max_attempts=1)
    return graph.compile().invoke({"messages": [("user", "Weigh it.")]})


def test_an_agents_last_call_is_its_own_matter():
    assert "no tools" not in weigh_directly()["cmat"]["verdict"]["reason"]


def test_a_result_that_an_agent_returns_directly_is_its_answer():
    assert weigh_directly()["messages"][-1].text == "3 kg"
