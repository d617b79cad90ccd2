from __future__ import annotations

import asyncio

import pytest
from handover_replies import said
from langchain_core.tools import tool

from cmat_graph import Budget, create_cmat_graph
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError, EngineBusyError, EngineError, PromptTooLongError
from cmat_graph.models.handover import HandOver
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.traces import TraceHandler

SURE, UNSURE = said("sure", 0.9, tokens=5), said("unsure", 0.2, tokens=5)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def invoke(model):
    return model.invoke("?")


def ainvoke(model):
    return asyncio.run(model.ainvoke("?"))


def stream(model):
    chunks = list(model.stream("?"))
    return sum(chunks[1:], chunks[0])


def astream(model):
    async def collect():
        return [chunk async for chunk in model.astream("?")]

    chunks = asyncio.run(collect())
    return sum(chunks[1:], chunks[0])


WAYS = pytest.mark.parametrize("ask", [invoke, ainvoke, stream, astream])


@WAYS
def test_a_sure_reply_stands(ask, model):
    pair = HandOver(primary=model(SURE), fallback=model("large"))
    reply = ask(pair)
    assert (reply.text, reply.response_metadata["handed_over"]) == ("sure", False)
    assert reply.response_metadata["model_name"] == "scripted"
    assert reply.usage_metadata["total_tokens"] == 10
    assert not pair.fallback.calls
    assert pair.counts == {"replies": 1}


@WAYS
def test_an_unsure_reply_is_handed_over_and_both_are_counted(ask, model):
    pair = HandOver(primary=model(UNSURE), fallback=model(said("large model", tokens=7), name="large"))
    reply = ask(pair)
    told = reply.response_metadata
    assert reply.text == "large model"
    assert (told["handed_over"], told["hand_over_reason"], told["model_name"]) == (True, "unsure", "large")
    assert (told["primary_model_name"], told["primary_confidence"]) == ("scripted", 0.2)
    assert reply.usage_metadata == {"input_tokens": 12, "output_tokens": 12, "total_tokens": 24}
    assert pair.counts == {"replies": 1, "unsure": 1}


@WAYS
@pytest.mark.parametrize("error", [EngineError("NaN"), PromptTooLongError("long"), EngineBusyError("busy")])
def test_a_primary_that_fails_is_answered_for(ask, error, model):
    reply = ask(HandOver(primary=model(error), fallback=model("large")))
    assert (reply.text, reply.response_metadata["hand_over_reason"]) == ("large", "failed")


@WAYS
def test_a_mistake_is_seen(ask, model):
    with pytest.raises(AdapterNotFoundError):
        ask(HandOver(primary=model(AdapterNotFoundError("none")), fallback=model("large")))


@WAYS
def test_an_unsure_reply_stands_while_the_fallback_is_down(ask, model):
    pair = HandOver(primary=model(UNSURE), fallback=model(ConnectionError("down")))
    reply = ask(pair)
    assert (reply.text, reply.response_metadata["handed_over"]) == ("unsure", False)
    assert pair.counts == {"replies": 1, "unsure": 1, "fallback_down": 1}


@WAYS
def test_when_both_fail_the_fallbacks_error_is_raised(ask, model):
    with pytest.raises(ConnectionError, match="down"):
        ask(HandOver(primary=model(EngineError("NaN")), fallback=model(ConnectionError("down"))))


def test_nothing_of_an_unsure_reply_is_ever_streamed(model):
    pair = HandOver(primary=model(said("one two three", 0.1)), fallback=model("four five six"))
    assert [chunk.text for chunk in pair.stream("?") if chunk.text] == ["four ", "five ", "six"]


def test_a_fallback_that_breaks_in_the_middle_is_not_patched_up(model):
    pair = HandOver(primary=model(UNSURE), fallback=model("one two three", cut_after=2))
    with pytest.raises(ConnectionError, match="cut off"):
        list(pair.stream("?"))


def test_calls_that_cannot_be_read_and_unknown_tools_are_handed_over(model):
    garbled = said("", 0.9, invalid=[{"name": "add", "args": "{", "id": "1", "error": "no JSON"}])
    unknown = said("", 0.9, calls=[{"name": "subtract", "args": {}, "id": "1"}])
    right = said("", 0.9, calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "1"}])
    pair = HandOver(primary=model(garbled, unknown, said(" ", 0.9), right), fallback=model("large"))
    bound = pair.bind_tools([add])
    assert [bound.invoke("?").text for _ in range(3)] == ["large"] * 3
    assert bound.invoke("?").tool_calls[0]["name"] == "add"
    assert pair.counts == {"replies": 4, "invalid": 3}


def test_both_are_given_the_tools(model):
    seen = []

    class Sees(ScriptedChatModel):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            seen.append([tool["function"]["name"] for tool in kwargs["tools"]])
            return super()._generate(messages, stop, run_manager)

    pair = HandOver(primary=Sees(replies=[UNSURE]), fallback=Sees(replies=["x"]))
    pair.bind_tools([add]).invoke("?")
    assert seen == [["add"], ["add"]]


def test_openai_logprobs_will_do(model):
    unsure = said("?", logprobs={"content": [{"token": "a", "logprob": -2.0}]})
    sure = said("!", logprobs={"content": [{"token": "a", "logprob": -0.01}]})
    pair = HandOver(primary=model(unsure, sure), fallback=model("large"))
    assert [pair.invoke("?").text for _ in range(2)] == ["large", "!"]


@pytest.mark.parametrize("logprobs", [None, {"content": None}])
def test_a_primary_that_never_says_how_sure_it_is_is_refused(logprobs, model):
    with pytest.raises(ConfigurationError, match="does not say how sure"):
        HandOver(primary=model(said("text", logprobs=logprobs)), fallback=model("large")).invoke("?")


def test_bad_arguments_name_the_fix(model):
    same = model("x")
    with pytest.raises(ConfigurationError, match="give a chance from 0 to 1"):
        HandOver(primary=model("x"), fallback=model("y"), threshold=60)
    with pytest.raises(ConfigurationError, match="the same model"):
        HandOver(primary=same, fallback=same)


def test_the_trace_shows_who_answered_each_step_and_what_both_used(traces, model):
    pair = HandOver(primary=model(UNSURE, SURE), fallback=model(said("large", tokens=7), name="large"))
    graph = create_cmat_graph(pair).compile()
    for _ in range(2):
        graph.invoke({"messages": [("user", "Hello")]}, {"callbacks": [TraceHandler(traces)]})
    first, second = (episode.steps for episode in traces.episodes())
    assert [(step.model, step.completion, step.input_tokens) for step in first] == [("large", "large", 12)]
    assert first[0].told == {"handed_over": True, "hand_over_reason": "unsure"}
    assert [(step.model, step.completion) for step in second] == [("scripted", "sure")]
    assert second[0].told == {"confidence": 0.9, "raw_confidence": 0.9, "handed_over": False}


def test_a_budget_counts_both(model):
    pair = HandOver(primary=model(UNSURE), fallback=model(said("large", tokens=7)))
    graph = create_cmat_graph(pair, checker=model("revise: no"), max_attempts=9, budget=Budget(tokens=20)).compile()
    loop = graph.invoke({"messages": [("user", "Hello")]})["cmat"]
    assert (loop["stopped"], loop["spent"]["tokens"] >= 24) == ("tokens", True)


def test_the_graph_streams_only_what_stands(model):
    graph = create_cmat_graph(HandOver(primary=model(said("no no", 0.1)), fallback=model("well then"))).compile()
    pieces = graph.stream({"messages": [("user", "Hello")]}, stream_mode="messages")
    assert "".join(m.text for m, about in pieces if about["langgraph_node"] == "assistant") == "well then"
