"""A hand-over that has tools is as quiet as one without: nothing unsure is streamed, no step is recorded twice."""

from __future__ import annotations

import asyncio

import pytest
from handover_replies import said
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from cmat_graph import create_cmat_graph
from cmat_graph.models.handover import HandOver, Trial
from cmat_graph.traces import TraceHandler

HELLO = {"messages": [("user", "Hello")]}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def plain(pair):
    bound = pair.bind_tools([add])
    graph = StateGraph(MessagesState)

    def node(state):
        return {"messages": [bound.invoke(state["messages"])]}

    async def anode(state):
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph.add_node("n", RunnableLambda(node, anode))
    graph.add_edge(START, "n")
    return graph.compile()


def streams(pair):
    bound = pair.bind_tools([add])
    graph = StateGraph(MessagesState)

    def node(state):
        chunks = list(bound.stream(state["messages"]))
        return {"messages": [sum(chunks[1:], chunks[0])]}

    async def anode(state):
        chunks = [chunk async for chunk in bound.astream(state["messages"])]
        return {"messages": [sum(chunks[1:], chunks[0])]}

    graph.add_node("n", RunnableLambda(node, anode))
    graph.add_edge(START, "n")
    return graph.compile()


GRAPHS = pytest.mark.parametrize(
    "build",
    [
        plain,
        streams,
        lambda pair: create_agent(pair, [add]),
        lambda pair: create_cmat_graph(pair, tools=[add]).compile(),
        lambda pair: create_agent(Trial(current=pair.fallback, candidate=pair, share=1.0), [add]),
    ],
    ids=["plain", "streams", "agent", "cmat", "trial"],
)


@pytest.fixture
def pair(model):
    def make(confidence=0.1):
        primary = model(said("not this", confidence, tokens=5))
        return HandOver(primary=primary, fallback=model(said("well then", tokens=7), name="large"))

    return make


def streamed(graph):
    return [piece.text for piece, _ in graph.stream(HELLO, stream_mode="messages")]


def astreamed(graph):
    async def collect():
        return [piece.text async for piece, _ in graph.astream(HELLO, stream_mode="messages")]

    return asyncio.run(collect())


@GRAPHS
@pytest.mark.parametrize("watch", [streamed, astreamed])
@pytest.mark.parametrize(("confidence", "stands"), [(0.1, "well then"), (0.9, "not this")])
def test_only_what_stands_is_streamed_and_once(build, watch, confidence, stands, pair):
    assert "".join(watch(build(pair(confidence)))) == stands


@GRAPHS
@pytest.mark.parametrize("later", [False, True])
def test_a_step_is_recorded_once(build, later, pair, traces):
    graph, config = build(pair()), {"callbacks": [TraceHandler(traces)]}
    if later:
        asyncio.run(graph.ainvoke(HELLO, config))
    else:
        graph.invoke(HELLO, config)
    (episode,) = traces.episodes()
    assert [(step.completion, step.input_tokens) for step in episode.steps] == [("well then", 12)]


@GRAPHS
def test_no_event_tells_what_was_unsure(build, pair):
    async def events():
        return [each async for each in build(pair()).astream_events(HELLO, version="v2")]

    said_by = [e["data"]["chunk"].text for e in asyncio.run(events()) if e["event"] == "on_chat_model_stream"]
    assert "not" not in "".join(said_by)
    assert "".join(said_by) == "well then"


def test_structured_output_is_as_quiet(model):
    """The fallback is asked through a chain of its own; that is nobody's business."""
    heard = []

    class Hears(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **kwargs):
            heard.append(serialized["id"][-1])

        def on_chain_start(self, serialized, inputs, *, name="", **kwargs):
            heard.append(name)

    pair = HandOver(primary=model(said("no", 0.1)), fallback=model("yes"))
    graph = StateGraph(MessagesState)
    graph.add_node("n", lambda state: {"messages": [pair.invoke(state["messages"], choices=["yes", "no"])]})
    graph.add_edge(START, "n")
    graph.compile().invoke(HELLO, {"callbacks": [Hears()]})
    assert heard == ["LangGraph", "n", "HandOver"]
