"""A whole debate behind one chat model, also in the Checker's seat of the CMAT graph."""

from __future__ import annotations

import asyncio

import pytest
from debaters import Agent, agent
from langchain_core.messages import HumanMessage, SystemMessage

from cmat_graph import create_cmat_graph, run_episode
from cmat_graph.debate import SocietyChatModel, create_debate_graph
from cmat_graph.errors import EngineError
from cmat_graph.models import ExpertChatModel
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.scripted import ScriptedEngine
from cmat_graph.testing import ScriptedChatModel

APPROVE = '{"reason": "It answers the task.", "verdict": "approve"}'
REVISE = '{"reason": "No working is shown.", "verdict": "revise", "hint": "Show it."}'


def society(*replies, **choice):
    choice = {"rounds": 1, **choice}
    return SocietyChatModel(debate=create_debate_graph([agent(reply) for reply in replies], **choice))


def test_the_reply_is_the_consensus_with_the_tokens_of_all():
    engine = ScriptedEngine(lambda question: "Answer: 4")
    model = SocietyChatModel(debate=create_debate_graph(TinyAgent(engine=engine)))
    reply = model.invoke("2+2?")
    assert reply.text == "Answer: 4"
    assert reply.usage_metadata["input_tokens"] == sum(len(question.prompt) for question in engine.questions)
    assert reply.response_metadata["debate"]["calls"] == 9
    assert asyncio.run(model.ainvoke("2+2?")).text == "Answer: 4"
    assert [each.text for each in model.batch(["1+1?", "2+2?"])] == ["Answer: 4"] * 2


def test_a_system_prompt_reaches_every_agent():
    model = Agent(script=lambda prompt: f"Answer: {len(prompt)}")
    asked = SocietyChatModel(debate=create_debate_graph(model, rounds=1))
    asked.invoke([SystemMessage("Count."), HumanMessage("How many?")])
    assert [prompt[0] for prompt in model.heard] == [{"role": "system", "content": "Count."}] * 3


def test_a_society_that_cannot_answer_raises():
    with pytest.raises(EngineError, match="RuntimeError: away"):
        SocietyChatModel(debate=create_debate_graph(agent(RuntimeError("away")), rounds=1)).invoke("2+2?")
    with pytest.raises(ValueError, match="needs a debate"):
        SocietyChatModel(debate="all of you")


def test_a_stop_string_ends_the_reply():
    assert society("Answer: 4. And so on.", "Answer: 4").invoke("2+2?", stop=[" And"]).text == "Answer: 4."


def test_a_society_checks_by_majority(env, traces):
    task = env.tasks("train")[0]
    checker = society(APPROVE, REVISE, APPROVE, pack="verdict")
    expert = ExpertChatModel(demonstrations=env.demonstrations())
    outcome = run_episode(
        create_cmat_graph(expert, checker=checker, max_attempts=1).compile(), task, env=env, traces=traces
    )
    assert (outcome.reward, outcome.stopped) == (1.0, "passed")
    [episode] = traces.episodes()
    assert (episode.answer, episode.stopped, episode.attempts) == (outcome.answer, "passed", 1)
    acted = [step for step in episode.steps if step.node == "assistant"]
    assert [step.before["reason"] for step in acted] == ["It answers the task."] * len(acted)
    nodes = [step.node for step in episode.steps]
    assert nodes.count("checker") * 3 == sum(node.startswith("generator-") for node in nodes)
    assert nodes.count("checker") >= len(acted)


def test_a_society_that_doubts_sends_the_work_back():
    checker = society(REVISE, REVISE, APPROVE, pack="verdict")
    assistant = ScriptedChatModel(replies=["Four.", "2+2=4"])
    graph = create_cmat_graph(assistant, checker=checker, max_attempts=1, max_revisions=1).compile()
    result = graph.invoke({"messages": [("user", "What is 2+2?")]})
    assert result["cmat"]["verdict"]["hint"] == "Show it."
    assert result["cmat"]["stopped"] != "passed"


def test_critics_of_a_checking_society_are_asked_for_the_same_form():
    heard = []
    model = Agent(script=lambda prompt: heard.append(prompt) or APPROVE)
    checker = SocietyChatModel(debate=create_debate_graph(model, pack="verdict", summarise=False))
    result = create_cmat_graph(ScriptedChatModel(replies=["2+2=4"]), checker=checker).compile().invoke(
        {"messages": [("user", "What is 2+2?")]}
    )  # fmt: skip
    assert result["cmat"]["stopped"] == "passed"
    critics = [prompt for prompt in heard if len(prompt) > 2]
    assert len(critics) == 3
    assert all(prompt[0]["role"] == "system" and "You are the Checker" in prompt[0]["content"] for prompt in heard)
    assert all("form that was asked for" in prompt[-1]["content"] for prompt in heard)
