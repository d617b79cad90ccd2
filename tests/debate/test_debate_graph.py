"""The debate as a LangGraph graph: fan-out, streams, checkpoints, a person, other graphs around it."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from debaters import TASK, Agent, agent, sums_up
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from cmat_graph.debate import create_debate_graph, read_debate
from cmat_graph.errors import ConfigurationError
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.scripted import ScriptedEngine
from cmat_graph.testing import StreamingChatModel
from cmat_graph.traces import Recorder, SQLTraceStore, TraceHandler

ASK = {"messages": [("user", TASK.prompt)]}


def thread(name="1", **more):
    return {"configurable": {"thread_id": name}, **more}


def society(**choice):
    return create_debate_graph(
        [agent("Answer: 1"), agent("Answer: 2"), agent("Answer: 2")],
        [agent("Answer: 2"), agent("Answer: 2"), agent("Answer: 3")],
        **{"summariser": Agent(script=sums_up), **choice},
    )


def edges(graph):
    return {(edge.source, edge.target) for edge in graph.compile().get_graph().edges}


# -- its shape --------------------------------------------------------------------------------------------------


def test_every_agent_has_a_node_and_the_moderator_stands_between_the_rounds():
    found = edges(society())
    for i in range(3):
        assert {("user", f"generator-{i}"), (f"generator-{i}", "moderator"), ("moderator", f"summary-{i}"),
                (f"summary-{i}", f"critic-{i}"), (f"critic-{i}", "moderator")} <= found  # fmt: skip
    assert ("moderator", "vote") in found
    assert not any(source.startswith("generator") and target.startswith("critic") for source, target in found)


def test_without_summaries_or_critics_there_are_no_such_nodes():
    assert not any("summary" in node for edge in edges(society(summarise=False)) for node in edge)
    assert not any("critic" in node for edge in edges(society(rounds=1)) for node in edge)


def test_agents_of_a_round_speak_at_the_same_time():
    together = threading.Barrier(3, timeout=20)

    def waits_for_the_others(prompt):
        together.wait()
        return "Answer: 1"

    graph = create_debate_graph([Agent(script=waits_for_the_others) for _ in range(3)], rounds=1).compile()
    assert graph.invoke(ASK)["messages"][-1].text.endswith("1")


# -- messages in, messages out ----------------------------------------------------------------------------------


def test_the_consensus_is_the_last_message_and_the_rest_is_under_one_key():
    result = society().compile().invoke(ASK)
    assert [m.type for m in result["messages"]] == ["human", "ai"]
    last = result["messages"][-1]
    assert last.text == "Answer: 2"
    assert last.response_metadata["debate"] == {
        "answer": "2", "share": 2 / 3, "rounds": 2, "calls": 9, "agent": "critic-0",
    }  # fmt: skip
    debate = result["debate"]
    assert (debate["answer"], debate["by"], debate["stopped"], debate["round"]) == ("2", "vote", "ended", 2)
    assert debate["vote"] == {"answer": "2", "groups": [[0, 1], [2]], "tied": False, "voters": 3, "share": 2 / 3}
    assert json.loads(json.dumps(debate)) == debate


def test_it_runs_the_same_on_an_event_loop():
    def bare(result):
        return [{**call, "seconds": 0, "id": "", "key": ""} for call in result["debate"]["turns"]]

    graph = society().compile()
    there, here = asyncio.run(graph.ainvoke(ASK)), society().compile().invoke(ASK)
    assert bare(there) == bare(here)
    assert there["messages"][-1].text == here["messages"][-1].text


def test_what_was_said_before_the_question_is_told_to_every_agent_and_not_to_the_summariser():
    seen = []
    model = Agent(script=lambda prompt: seen.append(prompt) or "Answer: 1")
    noter = Agent(script=sums_up)
    graph = create_debate_graph(model, agents=2, summariser=noter).compile()
    graph.invoke({"messages": [("system", "Be brief."), ("user", "Hi"), ("ai", "Hello."), ("user", "1+0?")]})
    assert all([m["content"] for m in prompt[:3]] == ["Be brief.", "Hi", "Hello."] for prompt in seen)
    assert all("1+0?" in prompt[3]["content"] for prompt in seen)
    assert all(len(prompt) == 1 and "Be brief." not in prompt[0]["content"] for prompt in noter.heard)


def test_a_thread_holds_one_debate_after_another():
    graph = society().compile(checkpointer=InMemorySaver())
    graph.invoke(ASK, thread())
    result = graph.invoke({"messages": [("user", "And 1+1?")]}, thread())
    assert [m.type for m in result["messages"]] == ["human", "ai"] * 2
    assert len(result["debate"]["turns"]) == 6
    assert result["debate"]["question"] == "And 1+1?"
    assert [m["content"] for m in result["debate"]["context"]] == [TASK.prompt, "Answer: 2"]


def test_a_society_is_one_runnable_in_an_app_and_one_node_in_another_graph():
    chain = RunnableLambda(lambda text: {"messages": [("user", text)]}) | society().compile()
    assert chain.invoke("6*7?")["messages"][-1].text == "Answer: 2"
    around = StateGraph(MessagesState)
    around.add_node("ask_the_society", society().compile())
    around.add_edge(START, "ask_the_society")
    around.add_edge("ask_the_society", END)
    result = around.compile().invoke(ASK)
    assert set(result) == {"messages"}
    assert result["messages"][-1].text == "Answer: 2"


def test_a_graph_may_sit_in_an_agents_seat():
    helper = StateGraph(MessagesState)
    helper.add_node("work", lambda state: {"messages": [AIMessage(f"Answer: {len(state['messages'])}")]})
    helper.add_edge(START, "work")
    helper.add_edge("work", END)
    result = create_debate_graph(helper.compile(), summarise=False).compile().invoke(ASK)
    assert [call["answer"] for call in result["debate"]["turns"]] == ["1"] * 3 + ["3"] * 3


def test_without_a_question_it_says_what_to_give():
    with pytest.raises(ConfigurationError, match="no question"):
        society().compile().invoke({"messages": [AIMessage("Hello.")]})


def test_where_nobody_can_speak_the_error_is_told():
    broken = agent(RuntimeError("away"))
    result = create_debate_graph(broken, summariser=broken).compile().invoke(ASK)
    assert (result["debate"]["stopped"], result["debate"]["answer"]) == ("error", "")
    assert result["debate"]["error"].splitlines() == [f"generator-{i} in round 1: RuntimeError: away" for i in range(3)]


def test_a_mistake_in_the_set_up_is_raised():
    lost = TinyAgent(engine=ScriptedEngine(["Answer: 1"]), adapter="generator-0/none")
    with pytest.raises(LookupError, match="generator-0/none"):
        create_debate_graph(lost, rounds=1).compile().invoke(ASK)


# -- streams ----------------------------------------------------------------------------------------------------


def test_every_agents_words_are_streamed_as_they_come_and_the_winner_only_once():
    talker = StreamingChatModel(replies=["Let me see. Answer: 4"])
    graph = create_debate_graph(talker, agents=2).compile()
    pieces = list(graph.stream(ASK, stream_mode="messages"))
    by_node = {}
    for piece, about in pieces:
        by_node.setdefault(about["langgraph_node"], []).append(piece.text)
    assert set(by_node) == {f"{seat}-{i}" for seat in ("generator", "summary", "critic") for i in (0, 1)}
    assert by_node["critic-1"] == ["Let ", "me ", "see. ", "Answer: ", "4"]


def test_the_moderator_tells_after_each_round_how_it_stands():
    events = list(society().compile().stream(ASK, stream_mode="custom"))
    assert [event["type"] for event in events] == ["question", "round", "round", "vote"]
    assert events[1] == {"type": "round", "round": 1, "answers": ["1", "2", "2"], "share": 2 / 3}
    assert events[-1] == {"type": "vote", "answer": "2", "share": 2 / 3, "tied": False}


# -- checkpoints ------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """What no node may swallow: the process is going down."""


def test_a_debate_goes_on_in_the_middle_and_asks_nobody_twice():
    generators = [agent("Answer: 1"), agent("Answer: 2"), agent("Answer: 2")]
    critics = [agent("Answer: 2"), agent(Stopped(), "Answer: 2"), agent("Answer: 3")]
    noter = Agent(script=sums_up)
    graph = create_debate_graph(generators, critics, summariser=noter).compile(checkpointer=InMemorySaver())
    with pytest.raises(Stopped):
        graph.invoke(ASK, thread(), durability="sync")
    assert graph.get_state(thread()).next
    result = graph.invoke(None, thread())
    assert (result["debate"]["answer"], result["debate"]["vote"]["share"]) == ("2", 2 / 3)
    assert [len(each.heard) for each in generators] == [1, 1, 1]
    assert len(noter.heard) == 3
    assert len(critics[1].heard) == 2


def test_what_goes_on_is_recorded_in_the_episode_that_was_begun(traces):
    critics = [agent("Answer: 2"), agent(Stopped(), "Answer: 2"), agent("Answer: 2")]
    graph = create_debate_graph(agent("Answer: 2"), critics, agents=3).compile(checkpointer=InMemorySaver())
    with pytest.raises(Stopped):
        graph.invoke(ASK, thread(callbacks=[TraceHandler(traces, run="a")]), durability="sync")
    graph.invoke(None, thread(callbacks=[TraceHandler(traces, run="a")]))
    ended = [episode for episode in traces.episodes() if episode.settings.get("debate")]
    assert [(e.stopped, e.answer, len(e.steps)) for e in ended] == [("ended", "2", 9)]
    assert read_debate(ended[0]).vote.share == 1.0


def test_a_fork_may_be_led_elsewhere():
    graph = society().compile(checkpointer=InMemorySaver(), interrupt_after=["moderator"])
    graph.invoke(ASK, thread())
    graph.update_state(thread(), {"debate": {"next": "vote"}}, as_node="moderator")
    result = graph.invoke(None, thread())
    assert (result["debate"]["round"], result["debate"]["answer"]) == (1, "2")


# -- a person ---------------------------------------------------------------------------------------------------


def judged(choice, traces):
    graph = society(human=True).compile(checkpointer=InMemorySaver())
    handler = TraceHandler(traces, run="a")
    waiting = graph.invoke(ASK, thread(callbacks=[handler]))
    [asked] = waiting["__interrupt__"]
    result = graph.invoke(Command(resume=choice), thread(callbacks=[TraceHandler(traces, run="a")]))
    [episode] = [episode for episode in traces.episodes() if episode.stopped == "ended"]
    return asked.value, result, episode


def test_a_person_sees_the_solutions_and_confirms_the_vote(traces):
    asked, result, episode = judged({"reason": ""}, traces)
    assert (asked["kind"], asked["answer"], asked["question"]) == ("vote", "2", TASK.prompt)
    assert [(each["agent"], each["answer"]) for each in asked["solutions"]] == [(0, "2"), (1, "2"), (2, "3")]
    assert (result["debate"]["answer"], result["debate"]["by"]) == ("2", "human")
    said = {step.node: step.after["decision"] for step in episode.steps if step.after}
    assert said == {
        "generator-0": "revise", "generator-1": "approve", "generator-2": "approve",
        "critic-0": "approve", "critic-1": "approve", "critic-2": "revise",
    }  # fmt: skip
    assert {step.after["source"] for step in episode.steps if step.after} == {"human"}
    assert episode.answer == "2"


def test_a_person_chooses_the_minority(traces):
    _, result, episode = judged({"agent": 2, "reason": "It is odd."}, traces)
    assert result["messages"][-1].text == "Answer: 3"
    assert episode.answer == "3"
    assert read_debate(episode).answer == "3"
    said = {step.node: (step.after["decision"], step.after["reason"]) for step in episode.steps if step.after}
    assert said["critic-2"] == ("approve", "It is odd.")
    assert said["critic-0"] == ("revise", "It is odd.")


def test_a_person_gives_an_answer_that_nobody_had(traces):
    _, result, episode = judged({"answer": "42"}, traces)
    assert (result["messages"][-1].text, result["debate"]["answer"], episode.answer) == ("42", "42", "42")
    assert {step.after["decision"] for step in episode.steps if step.after} == {"revise"}
    assert {step.after["hint"] for step in episode.steps if step.after} == {"42"}


def test_a_choice_that_cannot_be_is_asked_for_again(traces):
    silent = [agent("Answer: 2"), agent("Answer: 2"), agent("I would say eleventy.")]
    graph = create_debate_graph(silent, summarise=False, human=True).compile(checkpointer=InMemorySaver())
    config = thread(callbacks=[TraceHandler(traces, run="a")])
    graph.invoke(ASK, config)
    for wrong, problem in (({"agent": 7}, "no agent 7; give one of 0 to 2"), ({"agent": 2}, "give the answer itself")):
        [asked] = graph.invoke(Command(resume=wrong), config)["__interrupt__"]
        assert problem in asked.value["problem"]
        assert len(asked.value["solutions"]) == 3
    result = graph.invoke(Command(resume={"agent": 1}), config)
    assert (result["debate"]["answer"], result["messages"][-1].text) == ("2", "Answer: 2")
    [episode] = traces.episodes()
    said = {step.node: step.after["decision"] for step in episode.steps if step.after}
    assert [said[f"critic-{n}"] for n in range(3)] == ["approve", "approve", "revise"]


def test_a_person_cannot_be_waited_for_without_a_checkpointer():
    with pytest.raises(ConfigurationError, match="checkpointer"):
        society(human=True).compile().invoke(ASK)


# -- recording --------------------------------------------------------------------------------------------------


def test_a_handler_records_what_a_recorder_records(traces):
    graph = society().compile()
    graph.invoke(ASK, {"callbacks": [TraceHandler(traces, run="handler")]})
    graph.invoke(ASK, {"callbacks": [Recorder(traces, task=TASK, run="recorder")]})
    told = {
        episode.run: (
            sorted((s.node, s.attempt, repr(s.messages), s.completion) for s in episode.steps),
            (episode.answer, episode.stopped, episode.attempts, episode.settings, episode.roles),
        )
        for episode in traces.episodes()
    }
    assert told["handler"] == told["recorder"]
    assert len(told["handler"][0]) == 9


def test_inside_another_graph_the_episode_is_the_other_graphs(traces):
    around = StateGraph(MessagesState)
    around.add_node("society", society().compile())
    around.add_node("sign", lambda state: {"messages": [AIMessage(f"{state['messages'][-1].text}, yours")]})
    around.add_edge(START, "society")
    around.add_edge("society", "sign")
    around.compile().invoke({"messages": [HumanMessage("6*7?")]}, {"callbacks": [TraceHandler(traces)]})
    [episode] = traces.episodes()
    assert (episode.answer, len(episode.steps), "debate" in episode.settings) == ("Answer: 2, yours", 9, False)


def test_agents_that_end_at_once_are_recorded_after_their_episode_began(tmp_path):
    class Slow(SQLTraceStore):
        def start_episode(self, *args, **kwargs):
            time.sleep(0.1)
            super().start_episode(*args, **kwargs)

    traces = Slow(f"sqlite:///{tmp_path / 'slow.db'}")
    around = StateGraph(MessagesState)
    around.add_node("society", create_debate_graph(agent("Answer: 1"), rounds=1).compile())
    around.add_edge(START, "society")
    around.compile().invoke(ASK, {"callbacks": [TraceHandler(traces)]})
    [episode] = traces.episodes()
    assert (len(episode.steps), traces.dropped) == (3, 0)
