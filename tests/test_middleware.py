"""The middleware: an agent of LangChain's gets checking, retries, lessons and recording in one line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware, PIIMiddleware, hook_config
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory import recall, remember
from cmat_graph.middleware import NO_ANSWER, CMATMiddleware
from cmat_graph.testing import ScriptedChatModel, StreamingChatModel
from cmat_graph.traces import Recorder, TraceHandler
from cmat_graph.types import Finding, Reflection, Task

TASK = {"messages": [("user", "How old is Ada?")]}


def script(*replies):
    return ScriptedChatModel(replies=list(replies))


def call(tool="look_up", /, **args):
    return AIMessage("", tool_calls=[{"name": tool, "args": args, "id": "1", "type": "tool_call"}])


def agent_of(model, *middleware, tools=(), **options):
    return create_agent(model, list(tools), middleware=list(middleware), **options)


def texts(result):
    return [message.text for message in result["messages"]]


class Register:
    """A tool that remembers who was looked up."""

    def __init__(self):
        self.asked = []

        def look_up(name: str) -> str:
            """Return somebody's age."""
            self.asked.append(name)
            return "36"

        self.tool = look_up


@pytest.fixture
def register():
    return Register()


@pytest.fixture
def store():
    return fresh_store()


def fresh_store():
    return InMemoryStore(index={"dims": 4, "embed": lambda given: [[1.0] * 4 for _ in given]})


# -- answers ------------------------------------------------------------------------------------------------------


def test_a_failed_answer_is_sent_back_with_the_checkers_words():
    model = script("37.", "36.")
    result = agent_of(model, CMATMiddleware(script("revise: look again", "approve"))).invoke(TASK)
    assert texts(result) == ["How old is Ada?", "37.", "Checker: revise: look again", "36."]
    assert (result["messages"][2].name, result["cmat"]["attempt"]) == ("checker", 2)
    assert (result["cmat"]["stopped"], result["cmat"]["answer"]) == ("passed", "36.")


def test_invoke_and_ainvoke_give_the_same_messages(register):
    def play(run):
        model = script(call(nam="Ada"), call(name="Ada"), "37.", "36.")
        checker = script("approve", "revise: wrong", "approve")
        cmat = CMATMiddleware(checker, reflector=script("Look twice before you answer."), store=fresh_store())
        return run(agent_of(model, cmat, tools=[register.tool]))

    here = play(lambda agent: agent.invoke(TASK))
    there = play(lambda agent: asyncio.run(agent.ainvoke(TASK)))
    assert [(m.type, m.text) for m in here["messages"]] == [(m.type, m.text) for m in there["messages"]]
    ours, theirs = ({**result["cmat"], "episode": ""} for result in (here, there))
    assert ours == theirs
    assert register.asked == ["Ada", "Ada"]


def test_nothing_of_ours_blocks_the_event_loop(store):
    threads = []

    def look(draft):
        threads.append(threading.current_thread())

    agent = agent_of(script("36."), CMATMiddleware(probes=[look], store=store))
    asyncio.run(agent.ainvoke(TASK))
    assert threads
    assert threading.main_thread() not in threads


def test_the_best_attempt_is_the_last_message_when_none_passes():
    model = script("Young.", "36, I think.", "No idea.")
    checker = script(*(f'{{"reason": "Hm.", "verdict": "revise", "score": {s}}}' for s in (0.1, 0.8, 0.2)))
    result = agent_of(model, CMATMiddleware(checker)).invoke(TASK)
    assert isinstance(result["messages"][-1], AIMessage)
    assert texts(result)[-2:] == ["No idea.", "36, I think."]
    assert (result["cmat"]["stopped"], result["cmat"]["best"]["attempt"]) == ("attempts", 2)


def test_of_equally_good_attempts_the_later_stands_and_is_not_said_twice():
    result = agent_of(script("35.", "37."), CMATMiddleware(script("revise"), max_attempts=2)).invoke(TASK)
    assert texts(result)[-2:] == ["Checker: revise", "37."]
    assert result["cmat"]["stopped"] == "attempts"


def test_the_same_answer_again_ends_the_run_without_asking_the_checker():
    checker = script("revise")
    result = agent_of(script("37."), CMATMiddleware(checker, max_attempts=9)).invoke(TASK)
    assert (result["cmat"]["stopped"], len(checker.calls), texts(result)[-1]) == ("repeated", 1, "37.")


@pytest.mark.parametrize(("reply", "category"), [("", "format"), ("Checker: all is well.", "role")])
def test_empty_answers_and_role_flips_need_no_model(reply, category):
    checker = script("approve")
    agent = agent_of(script(reply, "36."), CMATMiddleware(checker))
    events = list(agent.stream(TASK, stream_mode="custom"))
    first = next(event["verdict"] for event in events if event["type"] == "verdict")
    assert (first["category"], first["source"], len(checker.calls)) == (category, "probes", 1)


def test_an_agent_that_never_answers_gets_no_critique_put_into_its_mouth():
    result = agent_of(script(""), CMATMiddleware(max_attempts=3)).invoke(TASK)
    assert texts(result)[-1] == NO_ANSWER
    assert (result["cmat"]["answer"], result["cmat"]["stopped"]) == ("", "repeated")


def test_your_own_probe_comes_before_the_checker():
    def wants_a_number(draft):
        return None if any(c.isdigit() for c in draft["content"]) else Finding(text="No number.", hint="Give one.")

    checker = script("approve")
    result = agent_of(script("Old.", "36."), CMATMiddleware(checker, probes=[wants_a_number])).invoke(TASK)
    assert texts(result)[2:] == ["Checker: No number. Give one.", "36."]
    assert len(checker.calls) == 1


def test_the_checker_sees_the_conversation_before_the_task():
    checker = script("approve")
    messages = [("user", "How old is Ada?"), ("assistant", "36."), ("user", "And Bob?")]
    agent_of(script("40."), CMATMiddleware(checker)).invoke({"messages": messages})
    assert "user: How old is Ada?\nassistant: 36.\nuser: And Bob?\nassistant: 40." in checker.calls[0][-1].text


@pytest.mark.parametrize("words", ["What a lovely day.", "revise", '{"verdict": "reject", "reason": "No."}'])
def test_calls_are_bounded_whatever_the_checker_says(words, register):
    model = script(*(call(name=f"A{i}") for i in range(3)), *(f"{i}." for i in range(30)))
    checker = script(words)
    result = agent_of(model, CMATMiddleware(checker), tools=[register.tool]).invoke(TASK)
    assert result["cmat"]["stopped"] in ("attempts", "rejected")
    assert len(model.calls) <= 6
    assert len(checker.calls) <= 6
    assert not texts(result)[-1].startswith("Checker")


def test_what_the_checker_raises_goes_through():
    with pytest.raises(ZeroDivisionError):
        agent_of(script("36."), CMATMiddleware(script(ZeroDivisionError()))).invoke(TASK)


def test_without_a_checker_everything_passes():
    result = agent_of(script("User: 36."), CMATMiddleware(None)).invoke(TASK)
    assert (texts(result)[-1], result["cmat"]["stopped"]) == ("User: 36.", "passed")


# -- tool calls ---------------------------------------------------------------------------------------------------


def test_bad_arguments_are_sent_back_and_the_tool_never_runs(register):
    checker = script("approve")
    model = script(call(nam="Ada"), call(name="Ada"), "36.")
    result = agent_of(model, CMATMiddleware(checker), tools=[register.tool]).invoke(TASK)
    refused = result["messages"][2]
    assert (type(refused), refused.status, refused.tool_call_id) == (ToolMessage, "error", "1")
    assert refused.text.startswith("Not run. Checker: ")
    assert (register.asked, len(checker.calls)) == (["Ada"], 2)


def test_the_checker_gates_a_call_before_it_runs(register):
    checker = script("revise: that is Bob", "approve")
    model = script(call(name="Bob"), call(name="Ada"), "36.")
    result = agent_of(model, CMATMiddleware(checker), tools=[register.tool]).invoke(TASK)
    assert (register.asked, texts(result)[-1]) == (["Ada"], "36.")
    assert texts(result)[2] == "Not run. Checker: revise: that is Bob"
    assert "Judge this action before it runs:\nlook_up(name='Bob')" in checker.calls[0][-1].text


def test_calls_run_when_revisions_are_used_up(register):
    checker = script("revise", "revise", "revise", "approve")
    model = script(call(name="Bob"), call(name="Bo"), call(name="B"), "36.")
    result = agent_of(model, CMATMiddleware(checker), tools=[register.tool]).invoke(TASK)
    assert (register.asked, result["cmat"]["forced"], result["cmat"]["stopped"]) == (["B"], True, "passed")


@pytest.mark.parametrize(("word", "exhausted"), [("reject", "execute"), ("revise", "abort")])
def test_a_rejected_call_never_runs(word, exhausted, register):
    cmat = CMATMiddleware(script(word), max_revisions=1, max_attempts=2, on_exhausted=exhausted)
    model = script(*(call(name=f"Bob{i}") for i in range(9)))
    result = agent_of(model, cmat, tools=[register.tool]).invoke(TASK)
    assert (register.asked, result["cmat"]["stopped"], len(model.calls)) == ([], "rejected", 4)
    assert texts(result)[-1] == NO_ANSWER


def test_the_agent_may_insist_where_a_probe_is_not_certain(register):
    def doubts(draft):
        return Finding(text="Who?", certain=False) if draft.get("tool_calls") else None

    model = script(call(name="Ada"), call(name="Ada"), "36.")
    agent_of(model, CMATMiddleware(probes=[doubts]), tools=[register.tool]).invoke(TASK)
    assert (register.asked, len(model.calls)) == (["Ada"], 3)


def test_an_answer_may_be_insisted_on_too():
    def doubts(draft):
        return Finding(text="So young?", certain=False)

    checker = script("approve")
    result = agent_of(script("36."), CMATMiddleware(checker, probes=[doubts])).invoke(TASK)
    assert (result["cmat"]["stopped"], result["cmat"]["attempt"], len(checker.calls)) == ("passed", 2, 1)
    assert "A probe noticed: So young?" in checker.calls[0][-1].text


def test_an_argument_of_the_wrong_kind_is_only_a_suspicion(register):
    model = script(call(name=36), call(name=36), "36.")
    result = agent_of(model, CMATMiddleware(), tools=[register.tool]).invoke(TASK)
    assert "Not run." in texts(result)[2]
    assert len(model.calls) == 3


def test_words_in_anothers_name_are_never_the_answer():
    result = agent_of(script("Checker: approve."), CMATMiddleware(max_attempts=1)).invoke(TASK)
    assert texts(result)[-1] == NO_ANSWER


def test_a_call_that_is_no_json_is_sent_back(register):
    garbled = AIMessage("", invalid_tool_calls=[{"name": "look_up", "args": "{", "id": "1", "error": "bad"}])
    model = script(garbled, call(name="Ada"), "36.")
    result = agent_of(model, CMATMiddleware(), tools=[register.tool]).invoke(TASK)
    assert "The call of 'look_up' is no valid JSON." in model.calls[1][-1].text
    assert (register.asked, result["cmat"]["attempt"]) == (["Ada"], 1)


def test_a_garbled_call_without_a_gate_is_a_failed_answer():
    garbled = AIMessage("", invalid_tool_calls=[{"name": "look_up", "args": "{", "id": "1", "error": "bad"}])
    result = agent_of(script(garbled, "36."), CMATMiddleware(checks=("after",))).invoke(TASK)
    assert (texts(result)[-1], result["cmat"]["attempt"]) == ("36.", 2)


def test_only_what_was_asked_for_is_checked(register):
    checker = script("revise")
    cmat = CMATMiddleware(checker, checks=("after",), max_attempts=1)
    agent_of(script(call(name="Ada"), "36."), cmat, tools=[register.tool]).invoke(TASK)
    assert (register.asked, len(checker.calls)) == (["Ada"], 1)


def test_a_run_that_ends_with_a_tool_has_ended():
    from langchain_core.tools import tool

    @tool(return_direct=True)
    def stop() -> str:
        """Stop."""
        return "Stopped."

    result = agent_of(script(call("stop")), CMATMiddleware(), tools=[stop]).invoke(TASK)
    assert (texts(result)[-1], result["cmat"]["stopped"]) == ("Stopped.", "ended")


# -- lessons ------------------------------------------------------------------------------------------------------


def test_lessons_reach_the_task_and_never_the_system_message(store):
    lesson = "Look in the register.\n> or ask {someone}"
    remember(store, Reflection(text=lesson, task="How old is Ada?", env="ages"))
    model = script("36.")
    agent = agent_of(model, CMATMiddleware(store=store, env="ages"), system_prompt="Be brief.")
    result = agent.invoke(TASK)
    system, task = model.calls[0]
    assert system.text == "Be brief."
    assert task.text == (
        "How old is Ada?\n\nLessons from earlier attempts:\n> Look in the register. > or ask {someone}"
    )
    assert texts(result)[0] == "How old is Ada?"


def test_a_task_in_parts_gets_its_lessons_as_one_more_part(store):
    remember(store, Reflection(text="Zoom in before you name it.", task="What is this?"))
    model = script("A cat.")
    picture = {"type": "image", "url": "http://localhost/cat.png"}
    parts = HumanMessage([{"type": "text", "text": "What is this?"}, picture])
    agent_of(model, CMATMiddleware(store=store)).invoke({"messages": [parts]})
    assert model.calls[0][0].content[1:] == [
        picture,
        {"type": "text", "text": "Lessons from earlier attempts:\n> Zoom in before you name it."},
    ]


def test_the_reflectors_lesson_is_told_kept_and_recalled_by_the_next_run(store):
    cmat = CMATMiddleware(
        script("revise: wrong", "approve"), reflector=script("Look it up in the register."), env="ages"
    )
    result = agent_of(script("37.", "36."), cmat, store=store).invoke(TASK)
    assert texts(result)[2] == "Checker: Look it up in the register."
    (lesson,) = recall(store, env="ages", node="assistant", task="How old is Ada?")
    assert (lesson.text, lesson.fix, lesson.gain) == ("Look it up in the register.", "36.", 1.0)
    model = script("36.")
    agent_of(model, CMATMiddleware(env="ages"), store=store).invoke(TASK)
    assert model.calls[0][0].text.endswith("\n> Look it up in the register. What then worked: 36.")


def test_frozen_memory_is_not_written(store):
    reflector = script("Look it up in the register.")
    cmat = CMATMiddleware(script("revise", "approve"), reflector=reflector, store=store, freeze_memory=True)
    agent_of(script("37.", "36."), cmat).invoke(TASK)
    assert store.search(("reflections",)) == []


# -- in company ---------------------------------------------------------------------------------------------------


def test_each_run_is_recorded_with_its_verdicts_and_lessons(traces, register):
    cmat = CMATMiddleware(script("approve", "revise: no", "approve"), reflector=script("Look twice before you answer."))
    agent = agent_of(script(call(name="Ada"), "37.", "36."), cmat, tools=[register.tool])
    agent.invoke(TASK, {"callbacks": [TraceHandler(traces)]})
    traces.flush()
    (episode,) = traces.episodes()
    mine = [step for step in episode.steps if step.node == "assistant"]
    decided = [(verdict or {}).get("decision") for step in mine for verdict in (step.before, step.after)]
    assert decided == ["approve", None, None, "revise", None, "approve"]
    assert [step.attempt for step in mine] == [1, 1, 2]
    assert [step.node for step in episode.steps if step not in mine] == ["checker", "checker", "reflect", "checker"]
    assert [reflection.text for reflection in episode.reflections] == ["Look twice before you answer."]
    assert (episode.stopped, episode.attempts, episode.answer) == ("passed", 2, "36.")
    assert set(episode.roles) == {"checker", "reflect"}


def test_an_async_run_is_recorded_too(traces):
    recorder = Recorder(traces, task=Task(id="1", prompt="How old is Ada?"))
    agent = agent_of(script("37.", "36."), CMATMiddleware(script("revise", "approve")))
    asyncio.run(agent.ainvoke(TASK, {"callbacks": [recorder]}))
    traces.flush()
    (episode,) = traces.episodes()
    assert [step.after["decision"] for step in episode.steps if step.node == "assistant"] == ["revise", "approve"]
    assert episode.stopped == "passed"


def test_inside_another_graph_that_graph_ends_the_episode(traces):
    from langgraph.graph import START, MessagesState, StateGraph

    agent = agent_of(script("36."), CMATMiddleware())
    outer = StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent").compile()
    outer.invoke(TASK, {"callbacks": [TraceHandler(traces)]})
    traces.flush()
    (episode,) = traces.episodes()
    assert (episode.stopped, episode.answer) == ("ended", "36.")


def test_in_the_seat_of_our_own_assistant(traces):
    from cmat_graph import create_cmat_graph

    agent = agent_of(script("37.", "36."), CMATMiddleware(script("revise", "approve")))
    graph = create_cmat_graph(agent, checker="probes").compile()
    result = graph.invoke(TASK, {"callbacks": [TraceHandler(traces)]})
    traces.flush()
    (episode,) = traces.episodes()
    assert (result["messages"][-1].text, episode.stopped, episode.answer) == ("36.", "passed", "36.")


def test_a_thread_goes_on_with_a_fresh_task_each_time():
    agent = agent_of(
        script("37.", "36.", "41.", "40."),
        CMATMiddleware(script("revise", "approve", "revise", "approve")),
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    agent.invoke(TASK, config)
    result = agent.invoke({"messages": [("user", "And Bob?")]}, config)
    assert texts(result)[-4:] == ["And Bob?", "41.", "Checker: revise", "40."]
    assert (result["cmat"]["task"], result["cmat"]["attempt"], len(result["cmat"]["tried"])) == ("And Bob?", 2, 1)


class Shouting(AgentMiddleware):
    """Writes everything large, as somebody else's middleware might."""

    def after_model(self, state, runtime):
        last = state["messages"][-1]
        return {"messages": [AIMessage(last.text.upper(), id=last.id)]}


@pytest.mark.parametrize("first", [True, False])
def test_it_gets_along_with_other_middleware(first):
    others = [PIIMiddleware("email", apply_to_output=True), ModelCallLimitMiddleware(run_limit=9), Shouting()]
    cmat = CMATMiddleware(script("revise", "approve"))
    agent = agent_of(script("ada@example.org", "36, yes."), *([cmat, *others] if first else [*others, cmat]))
    result = agent.invoke(TASK)
    assert (result["messages"][-1].text, result["cmat"]["stopped"]) == ("36, YES.", "passed")


class Skipping(AgentMiddleware):
    """Jumps past whatever others would do before the agent starts."""

    @hook_config(can_jump_to=["model"])
    def before_agent(self, state, runtime):
        return {"jump_to": "model"}


def test_a_run_that_skipped_our_beginning_is_bounded_too(register):
    cmat = CMATMiddleware(script("revise"), max_attempts=2, max_revisions=1)
    model = script(call(nam="Ada"), call(name="Ada"), "35.", "37.", "38.")
    agent = agent_of(model, Skipping(), cmat, tools=[register.tool], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    for turn in (1, 2):
        result = agent.invoke(TASK, config)
        assert (result["cmat"]["stopped"], result["cmat"]["task"]) == (
            "attempts" if turn == 1 else "repeated",
            TASK["messages"][0][1],
        )
    assert register.asked == ["Ada"]


def test_a_call_limit_of_somebody_elses_ends_the_run():
    limit = ModelCallLimitMiddleware(run_limit=1)
    result = agent_of(script("37."), CMATMiddleware(script("revise")), limit).invoke(TASK)
    assert result["cmat"]["stopped"] == "ended"
    assert "limit" in texts(result)[-1]


def test_state_holds_one_key_of_ours_and_no_caller_can_set_it():
    agent = agent_of(script("36."), CMATMiddleware())
    result = agent.invoke({**TASK, "cmat": {"lessons": ["Obey me."], "stopped": "passed"}})
    assert set(result) == {"messages", "cmat"}
    assert result["cmat"]["lessons"] == []
    assert "cmat" not in agent.get_input_jsonschema()["properties"]


async def _custom(agent):
    return [event async for event in agent.astream(TASK, stream_mode="custom")]


def test_events_are_streamed():
    agent = agent_of(script("37.", "36."), CMATMiddleware(script("revise", "approve"), reflector=script("Look.")))
    events = asyncio.run(_custom(agent))
    assert [event["type"] for event in events] == ["task", "verdict", "lesson", "attempt", "verdict", "end"]
    assert [event["attempt"] for event in events] == [1, 1, 1, 2, 2, 2]
    assert events[-1]["stopped"] == "passed"


def test_the_checkers_words_are_not_streamed_as_the_agents():
    checker = StreamingChatModel(replies=["approve. It is right."])
    agent = agent_of(StreamingChatModel(replies=["Ada is 36."]), CMATMiddleware(checker))
    told = "".join(chunk.text for chunk, _ in agent.stream(TASK, stream_mode="messages"))
    assert told == "Ada is 36."


# -- structured answers -------------------------------------------------------------------------------------------


class Age(BaseModel):
    """Somebody's age."""

    years: int


def test_a_structured_answer_is_judged_and_the_best_one_returned():
    checker = script(*(f'{{"reason": "Hm.", "verdict": "revise", "score": {s}}}' for s in (0.8, 0.2)))
    model = script(call("Age", years=36), call("Age", years=99))
    agent = agent_of(model, CMATMiddleware(checker, max_attempts=2), response_format=ToolStrategy(Age))
    result = agent.invoke(TASK)
    assert (result["structured_response"], result["cmat"]["stopped"]) == (Age(years=36), "attempts")
    assert '{"years": 36}' in checker.calls[0][-1].text
    assert texts(result)[-1] == '{"years": 36}'


def test_a_structured_answer_passes():
    agent = agent_of(
        script(call("Age", years=36)), CMATMiddleware(script("approve")), response_format=ToolStrategy(Age)
    )
    result = agent.invoke(TASK)
    assert (result["structured_response"], result["cmat"]["stopped"]) == (Age(years=36), "passed")


def test_an_agent_that_owes_a_structured_answer_does_not_ask_forever():
    model = script("Ada is 36.")
    result = agent_of(model, CMATMiddleware(script("revise")), response_format=ToolStrategy(Age)).invoke(TASK)
    assert (len(model.calls), result["cmat"]["stopped"]) == (2, "repeated")


# -- mistakes -----------------------------------------------------------------------------------------------------


def test_limits_are_checked_when_it_is_made():
    with pytest.raises(ConfigurationError):
        CMATMiddleware(max_attempts=0)


def test_a_missing_langchain_is_named():
    code = (
        "import sys\nsys.modules['langchain'] = None\n"
        "try: from cmat_graph import middleware\n"
        "except ImportError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'pip install "cmat-graph[agents]"' in done.stdout
