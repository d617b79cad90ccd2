"""An agent that exists already sits in the assistant's seat: it gets checking, lessons and recording as it is."""

from __future__ import annotations

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from sculptures import ENV, TASK, script

from cmat_graph import RunContext, create_cmat_graph
from cmat_graph.errors import ConfigurationError
from cmat_graph.traces import Recorder
from cmat_graph.types import Task

THREAD = {"configurable": {"thread_id": "1"}}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def adds(a, b):
    return AIMessage("", tool_calls=[{"name": "add", "args": {"a": a, "b": b}, "id": f"{a}{b}", "type": "tool_call"}])


def say(text):
    return {"messages": [("user", text)]}


@pytest.mark.parametrize("memory", [None, InMemorySaver()], ids=["plain", "with its own checkpointer"])
def test_an_agents_inner_calls_are_recorded_with_their_exact_prompts(traces, memory):
    agent = create_agent(script(adds(1, 2), "3", "It is 3."), [add], system_prompt="You add.", checkpointer=memory)
    graph = create_cmat_graph(agent, checker=script("revise: say it in words", "approve")).compile()
    recorder = Recorder(traces, task=Task(id="1", prompt="1 + 2?"))
    state = graph.invoke(say("1 + 2?"), {"callbacks": [recorder]})
    assert state["messages"][-1].text == "It is 3."
    (episode,) = traces.episodes()
    assert [step.node for step in episode.steps] == ["assistant", "assistant", "checker", "assistant", "checker"]
    first, second, _, third, _ = episode.steps
    assert [m["content"] for m in first.messages] == ["You add.", "1 + 2?"]
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [("add", {"a": 1, "b": 2})]
    assert [m["content"] for m in second.messages] == ["You add.", "1 + 2?", "", "3"]
    assert [m["content"] for m in third.messages] == ["You add.", "1 + 2?", "3", "Checker: revise: say it in words"]
    assert [step.after and step.after["decision"] for step in (first, second, third)] == [None, "revise", "approve"]


def test_an_agents_own_threads_are_not_written_to():
    memory = InMemorySaver()
    agent = create_agent(script("Four."), [], checkpointer=memory)
    graph = create_cmat_graph(agent).compile(checkpointer=InMemorySaver())
    graph.invoke(say("2 + 2?"), THREAD)
    assert list(memory.list(None)) == []


def test_each_attempt_of_an_agent_begins_afresh():
    model = script("Five.", "Four.")
    agent = create_agent(model, [], checkpointer=InMemorySaver())
    graph = create_cmat_graph(agent, checker=script("reject: wrong", "approve")).compile(checkpointer=InMemorySaver())
    graph.invoke(say("2 + 2?"), THREAD)
    assert [message.text for message in model.calls[1]] == ["2 + 2?\n\nLessons from earlier attempts:\n> reject: wrong"]


class Clashing(MessagesState):
    cmat: str
    task: str
    answer: str
    attempt: str
    verdict: str
    remaining_steps: int


def test_a_graph_whose_state_has_the_same_names():
    def think(state):
        assert "cmat" not in state
        return {"cmat": "mine", "task": "mine", "attempt": "mine", "messages": [("ai", "Four.")]}

    agent = StateGraph(Clashing).add_node("think", think).add_edge(START, "think").compile()
    state = create_cmat_graph(agent, checker="probes").compile().invoke(say("2 + 2?"))
    assert (state["cmat"]["task"], state["cmat"]["attempt"], state["messages"][-1].text) == ("2 + 2?", 1, "Four.")
    assert set(state) == {"messages", "cmat"}


def test_the_conversation_and_the_apps_system_prompt_reach_the_agent():
    model = script("Nine.")
    given = [SystemMessage("Be brief."), ("user", "2 + 2?"), ("ai", "Four."), ("user", "3 * 3?")]
    create_cmat_graph(create_agent(model, [], system_prompt="You add.")).compile().invoke({"messages": given})
    assert [m.text for m in model.calls[0]] == ["You add.", "Be brief.", "2 + 2?", "Four.", "3 * 3?"]


def test_the_environments_rules_reach_the_agent():
    model = script("Nothing.")
    context = RunContext(session=ENV.open(TASK), rules=ENV.rules)
    create_cmat_graph(create_agent(model, []), max_attempts=1).compile().invoke(say(TASK.prompt), context=context)
    assert model.calls[0][0].text == f"{ENV.rules}\n\n{TASK.prompt}"


def test_an_agent_that_asks_a_person_is_answered_through_our_graph():
    asked = []

    @tool
    def confirm() -> str:
        """Ask whether to go on."""
        asked.append(1)
        return str(interrupt("Go on?"))

    call = AIMessage("", tool_calls=[{"name": "confirm", "args": {}, "id": "1", "type": "tool_call"}])
    model = script(call, "He said yes.")
    graph = create_cmat_graph(create_agent(model, [confirm]), checker="probes").compile(checkpointer=InMemorySaver())
    state = graph.invoke(say("Ask him."), THREAD)
    assert state["__interrupt__"][0].value == "Go on?"
    state = graph.invoke(Command(resume="yes"), THREAD)
    assert model.calls[1][-1].text == "yes"
    assert (state["messages"][-1].text, len(model.calls)) == ("He said yes.", 2)


def test_agents_may_judge_and_reflect_too():
    judge = create_agent(script("reject: wrong", "approve"), [])
    teacher = create_agent(script("Count on your fingers."), [])
    model = script("Five.", "Four.")
    state = create_cmat_graph(model, checker=judge, reflector=teacher).compile().invoke(say("2 + 2?"))
    assert (state["cmat"]["stopped"], state["cmat"]["lessons"]) == ("passed", ["Count on your fingers."])


def test_streams_of_an_agent_are_seen_outside():
    agent = create_agent(script(adds(1, 2), "3"), [add])
    graph = create_cmat_graph(agent).compile()
    parts = list(graph.stream(say("1 + 2?"), stream_mode="updates", subgraphs=True))
    assert [node for space, update in parts if space for node in update] == ["model", "tools", "model"]


def test_an_agent_brings_its_own_tools():
    with pytest.raises(ConfigurationError, match="its own tools"):
        create_cmat_graph(create_agent(script("x"), []), tools=[add])
