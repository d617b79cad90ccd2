"""`ChatOpenAI` on our server: what a graph on another machine uses."""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from cmat_graph import create_cmat_graph


class Place(BaseModel):
    """A place."""

    city: str


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"dry in {city}"


@pytest.fixture
def model(url):
    return ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="nano", max_retries=0)


def test_it_answers_with_usage(model):
    reply = model.invoke("Hello")
    assert reply.text == "Hello there, friend"
    assert reply.usage_metadata["input_token_details"]["cache_read"] == 4
    assert reply.response_metadata["finish_reason"] == "stop"


def test_it_streams_with_usage_and_async(model):
    chunks = list(model.stream("Hello", stream_usage=True))
    assert "".join(chunk.text for chunk in chunks) == "Hello there, friend"
    assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) == 10

    async def ask():
        replies = await asyncio.gather(*(model.ainvoke("Hello") for _ in range(5)))
        return [reply.text for reply in replies] + ["".join([chunk.text async for chunk in model.astream("Hello")])]

    assert set(asyncio.run(ask())) == {"Hello there, friend"}


def test_it_calls_tools_and_reads_their_results(model, clerk):
    def reply(messages, settings):
        if isinstance(messages[-1], ToolMessage):
            return AIMessage(f"It is {messages[-1].text}.")
        return AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Bern"}, "id": "c1"}])

    clerk.reply = reply
    bound = model.bind_tools([weather], tool_choice="weather")
    asked = bound.invoke("Rain?")
    assert asked.tool_calls[0]["args"] == {"city": "Bern"}
    assert reduce(add, bound.stream("Rain?")).tool_calls == asked.tool_calls
    result = weather.invoke(asked.tool_calls[0])
    assert bound.invoke([HumanMessage("Rain?"), asked, result]).text == "It is dry in Bern."


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_it_structures_its_output(model, clerk, method):
    def reply(messages, settings):
        if "tools" in settings:
            return AIMessage("", tool_calls=[{"name": "Place", "args": {"city": "Bern"}, "id": "c1"}])
        assert settings["response_format"]["type"] in ("json_schema", "json_object")
        return AIMessage('{"city": "Bern"}')

    clerk.reply = reply
    assert model.with_structured_output(Place, method=method).invoke("Where?") == Place(city="Bern")


def test_it_takes_a_seat_in_the_graph(model, clerk):
    clerk.reply = AIMessage("The answer is 4.")
    graph = create_cmat_graph(model).compile()
    done = graph.invoke({"messages": [HumanMessage("2 + 2?")]})
    assert done["messages"][-1].text == "The answer is 4."
