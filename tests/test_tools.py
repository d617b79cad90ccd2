"""Tools as actions: each call is looked at before it runs, bounded while it runs, and answered whatever happens."""

from __future__ import annotations

import asyncio
import time

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from sculptures import script

from cmat_graph import create_cmat_graph
from cmat_graph.errors import ConfigurationError
from cmat_graph.nodes.attempt import NO_ANSWER
from cmat_graph.traces import Recorder
from cmat_graph.types import Task

RAN: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()


@tool
def double(number: int) -> str:
    """Double a number."""
    RAN.append(number)
    return str(2 * number)


@tool
def fail(why: str) -> str:
    """Fail."""
    raise RuntimeError(why)


@tool
def shout(length: int) -> str:
    """Say much."""
    return "a" * length


@tool
def sleep(seconds: float) -> str:
    """Sleep."""
    time.sleep(seconds)
    return "awake"


@tool
async def sleep_later(seconds: float) -> str:
    """Sleep without a thread."""
    await asyncio.sleep(seconds)
    return "awake"


TOOLS = [double, fail, shout, sleep, sleep_later]


def calls(name, *many, text="", **args):
    """Write a turn that calls one tool, once or many times."""
    given = [{"name": name, "args": a, "id": f"{name}{i}"} for i, a in enumerate(many or [args])]
    return AIMessage(text, tool_calls=[{**call, "type": "tool_call"} for call in given])


def play(model, *, tools=TOOLS, later=False, config=None, **options):
    graph = create_cmat_graph(model, tools=tools, **options).compile()
    given = {"messages": [("user", "Double 21.")]}
    state = asyncio.run(graph.ainvoke(given, config)) if later else graph.invoke(given, config)
    return {**state["cmat"], "text": state["messages"][-1].text}


def answers(call):
    """Return the tools' messages in a prompt."""
    return [message for message in call if isinstance(message, ToolMessage)]


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("checker", [None, "probes"])
def test_a_right_call_runs_and_its_result_reaches_the_model(checker, later):
    model = script(calls("double", number=21), "It is 42.")
    state = play(model, checker=checker, later=later)
    assert (RAN, state["stopped"], state["text"]) == ([21], "passed", "It is 42.")
    (seen,) = answers(model.calls[1])
    assert (seen.text, seen.tool_call_id) == ("42", "double0")


# -- what is sent back and never runs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (calls("double", {"number": 1}, {}), "'number' is a required property"),
        (calls("double", {"number": 1}, {"number": "many"}), "'many' is not of type 'integer'"),
        (calls("halve", {"number": 1}, {"number": 2}), "There is no tool 'halve'. The tools are: double, fail"),
    ],
)
def test_a_wrong_call_goes_back_with_an_answer_to_each_call(bad, said):
    model = script(bad, calls("double", number=21), "42")
    state = play(model, checker="probes", max_attempts=1)
    assert (RAN, state["stopped"]) == ([21], "passed")
    seen = answers(model.calls[1])
    assert [message.tool_call_id for message in seen] == [call["id"] for call in bad.tool_calls]
    assert all(message.text.startswith("Not run. Checker: ") and said in message.text for message in seen)


def test_insisting_on_a_suspicion_runs():
    model = script(calls("double", number="21"), calls("double", number="21"), "42")
    state = play(model, checker="probes", max_attempts=1)
    assert "'21' is not of type 'integer'" in model.calls[1][-1].text
    assert (RAN, state["stopped"]) == ([21], "passed")


def test_insisting_on_a_wrong_call_meets_the_tools_own_error():
    state = play(script(calls("double"), calls("double"), "I give up."), checker="probes", max_attempts=1)
    assert RAN == []
    assert "number" in state["flaw"]
    assert "required" in state["flaw"].lower()


def test_a_checker_model_gates_calls():
    checker = script("revise: too much", "approve", "approve")
    model = script(calls("double", number=10**6, text="I try."), calls("double", number=21), "42")
    state = play(model, checker=checker, max_attempts=1)
    assert (RAN, state["stopped"]) == ([21], "passed")
    assert checker.calls[0][-1].text.endswith("Judge this action before it runs:\nI try.\ndouble(number=1000000)")
    assert "assistant: double(number=21)\ntool: 42" in checker.calls[2][-1].text


def test_a_rejected_call_never_runs():
    state = play(script(calls("double", number=1)), checker=script("reject: no"), max_attempts=1)
    assert (RAN, state["stopped"], state["text"]) == ([], "rejected", NO_ANSWER)


# -- what goes wrong while it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
def test_a_tool_that_raises_is_an_observation(later):
    model = script(calls("fail", why="no luck"), calls("double", number=21), "42")
    state = play(model, checker="probes", later=later)
    assert "no luck" in answers(model.calls[1])[0].text
    assert (state["stopped"], state["attempt"]) == ("passed", 1)


@pytest.mark.clock
@pytest.mark.parametrize(("name", "later"), [("sleep", False), ("sleep", True), ("sleep_later", True)])
def test_a_tool_that_hangs_is_given_up(name, later):
    seconds = 1.0 if later and name == "sleep" else 5.0  # when it ends, an event loop waits for its threads
    model = script(calls(name, seconds=seconds), calls("double", number=21), "42")
    start = time.perf_counter()
    state = play(model, tool_seconds=0.1, later=later)
    assert answers(model.calls[1])[0].text.startswith("Error: no result within 0.1 seconds. Some of it may")
    assert (state["stopped"], state["text"]) == ("passed", "42")
    assert time.perf_counter() - start < 4.5


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
def test_an_async_tool_needs_ainvoke(later):
    model = script(calls("sleep_later", seconds=0.0), "Done.")
    play(model, later=later, max_attempts=1)
    assert ("awake" in answers(model.calls[1])[0].text) is later


def test_megabytes_are_cut_and_the_model_is_told():
    model = script(calls("shout", {"length": 3_000_000}, {"length": 3_000_000}), "Loud.")
    state = play(model)
    seen = answers(model.calls[1])
    assert [message.text[-40:] for message in seen] == ["a\n[2992000 more characters were cut]".rjust(40, "a")] * 2
    assert state["stopped"] == "passed"


MANY = [{"number": i} for i in range(1_000)]


def test_a_thousand_calls_go_back():
    model = script(calls("double", *MANY), calls("double", number=21), "42")
    state = play(model, checker="probes")
    assert (RAN, state["stopped"]) == ([21], "passed")
    seen = answers(model.calls[1])
    assert len({message.tool_call_id for message in seen}) == 1_000
    assert "1000 tool calls in one turn. Make at most 16." in seen[-1].text


def test_a_thousand_calls_that_are_forced_run_sixteen_and_answer_all():
    model = script(calls("double", *MANY), "Many.")
    play(model, max_attempts=1)
    assert sorted(RAN) == list(range(16))
    seen = answers(model.calls[1])
    assert len({message.tool_call_id for message in seen}) == 1_000
    assert [seen[15].text, seen[16].text] == ["30", "Error: not run; at most 16 calls in one turn."]


@pytest.mark.parametrize("checker", [None, "probes"])
def test_a_call_that_is_no_json_goes_back(checker):
    garbled = AIMessage("", invalid_tool_calls=[{"name": "double", "args": "{nu", "id": "1", "error": "no JSON"}])
    model = script(garbled, calls("double", number=21), "42")
    state = play(model, checker=checker, max_attempts=1)
    assert (RAN, state["stopped"]) == ([21], "passed")
    assert model.calls[1][-1].text == "Checker: The call of 'double' is no valid JSON. Write its arguments as JSON."


def test_plain_functions_are_tools():
    def triple(number: int) -> int:
        """Triple a number."""
        return 3 * number

    model = script(calls("triple", number=14), "42")
    play(model, tools=[triple])
    assert answers(model.calls[1])[0].text == "42"


# -- what cannot work, and what is written down ---------------------------------------------------------------------


def test_a_model_that_cannot_call_tools_is_refused():
    with pytest.raises(ConfigurationError, match="cannot call tools"):
        create_cmat_graph(FakeListChatModel(responses=["x"]), tools=[double])


def test_a_graph_brings_its_own_tools():
    agent = StateGraph(MessagesState).add_node("a", lambda state: state).add_edge(START, "a").compile()
    with pytest.raises(ConfigurationError, match="brings its own tools"):
        create_cmat_graph(agent, tools=[double])


def test_steps_are_recorded_with_calls_schemas_and_results(traces):
    recorder = Recorder(traces, task=Task(id="1", prompt="Double 21."))
    play(script(calls("double", number=21), "42"), checker="probes", config={"callbacks": [recorder]})
    (episode,) = traces.episodes()
    first, last = episode.steps
    assert first.tool_calls == [{"name": "double", "args": {"number": 21}, "id": "double0"}]
    assert [each["function"]["name"] for each in first.tools] == [each.name for each in TOOLS]
    assert (first.observation, first.before["decision"], last.after["decision"]) == ("42", "approve", "approve")
    assert last.messages[-1] == {"role": "tool", "content": "42", "tool_call_id": "double0"}
