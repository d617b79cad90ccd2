"""Budgets: an episode ends when one is used up, with its typed reason and the best attempt so far."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage
from sculptures import DONE, ENV, RIGHT, TASK, script

from cmat_graph import RunContext, create_cmat_graph
from cmat_graph.envs.database.dbbench import operation
from cmat_graph.errors import ConfigurationError
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.types import Budget

GRADES = ('{"verdict": "reject", "score": 0.6}', '{"verdict": "reject", "score": 0.3}')


def counted(text, tokens):
    usage = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
    return AIMessage(text, usage_metadata=usage)


def ask(model, **options):
    state = create_cmat_graph(model, **options).compile().invoke({"messages": [("user", "2 + 2?")]})
    return {**state["cmat"], "text": state["messages"][-1].text}


def test_tokens_end_with_the_best_attempt():
    model = script(counted("good", 10), counted("bad", 10), counted("worse", 10))
    checker = script(*(counted(grade, 10) for grade in GRADES))
    state = ask(model, checker=checker, budget=Budget(tokens=40))
    assert (state["stopped"], state["text"], state["spent"]["tokens"]) == ("tokens", "good", 40)
    assert (len(model.calls), len(checker.calls)) == (2, 2)


def test_tokens_are_estimated_where_a_model_reports_none():
    state = ask(script("x" * 4_000), budget=Budget(tokens=1_000))
    assert state["stopped"] == "tokens"
    assert 1_000 < state["spent"]["tokens"] < 2_000


def test_the_first_reply_is_the_answer_when_there_was_no_budget_to_judge_it():
    checker = script("reject")
    state = ask(script(counted("four", 100)), checker=checker, budget=Budget(tokens=50))
    assert (state["stopped"], state["text"], checker.calls) == ("tokens", "four", [])


def test_a_judged_attempt_is_better_than_one_that_nobody_judged():
    model = script(counted("good", 10), counted("unknown", 100))
    state = ask(model, checker=script(counted(GRADES[0], 10)), budget=Budget(tokens=100))
    assert (state["stopped"], state["text"]) == ("tokens", "good")


def test_seconds_are_counted_in_models():
    slow = ScriptedChatModel(replies=["a", "b", "c"], seconds=0.5)
    state = ask(slow, checker=script("reject"), budget=Budget(seconds=0.95))
    assert (state["stopped"], len(slow.calls)) == ("seconds", 2)
    assert 1.0 <= state["spent"]["seconds"] < 10


def test_seconds_are_counted_in_models_that_wait_on_the_event_loop():
    slow = ScriptedChatModel(replies=["a", "b", "c"], seconds=0.5)
    graph = create_cmat_graph(slow, checker=script("reject"), budget=Budget(seconds=0.95)).compile()
    state = asyncio.run(graph.ainvoke({"messages": [("user", "2 + 2?")]}))
    assert (state["cmat"]["stopped"], len(slow.calls)) == ("seconds", 2)


def test_cost_is_counted_by_the_prices_of_each_model():
    prices = {"scripted": (2.0, 8.0), "judge": (100.0, 0.0)}
    judge = ScriptedChatModel(replies=[counted("reject", 1_000)], model_name="judge")
    state = ask(script(counted("a", 1_000)), checker=judge, budget=Budget(cost=0.1, prices=prices))
    assert state["stopped"] == "cost"
    assert state["spent"]["cost"] == pytest.approx(0.102)


@pytest.mark.parametrize("seat", ["assistant", "checker", "reflector", "user"])
def test_a_missing_price_names_the_model(seat):
    models = {
        "assistant": script("a", "b"),
        "checker": script("reject"),
        "reflector": script("Think."),
        "user": script("Be brief."),
    }
    models[seat] = ScriptedChatModel(replies=["reject"], model_name="gpt-x")
    budget = Budget(cost=1.0, prices={"scripted": (1.0, 1.0)})
    with pytest.raises(ConfigurationError, match=r"no price for 'gpt-x'; add it to Budget\(prices=...\)"):
        ask(models.pop("assistant"), **models, budget=budget)


def test_a_cost_budget_without_prices_is_refused_when_the_graph_is_built():
    with pytest.raises(ConfigurationError, match="needs prices"):
        create_cmat_graph(script("x"), budget=Budget(cost=1.0))


def test_without_prices_nothing_is_said_of_cost():
    assert ask(script("4"), budget=Budget(tokens=10_000))["spent"]["cost"] == 0.0


def test_every_call_is_counted_the_users_and_the_reflectors_too():
    state = ask(
        script(counted("a", 1), counted("b", 10)),
        checker=script(counted("reject", 100), counted("approve", 1_000)),
        reflector=script(counted("Think of all the cases.", 10_000)),
        user=script(counted("", 100_000)),
    )
    assert (state["stopped"], state["spent"]["calls"], state["spent"]["tokens"]) == ("passed", 6, 111_111)


def test_in_an_environment_the_best_attempts_table_is_left():
    session = ENV.open(TASK)
    model = script(
        counted(operation(RIGHT, "Set."), 10),
        counted(DONE, 10),
        counted(operation(RIGHT.replace("1948", "1950"), "Set."), 100),
    )
    checker = script(counted(GRADES[0], 10))
    graph = create_cmat_graph(model, checker=checker, checks=("after",), budget=Budget(tokens=100)).compile()
    state = graph.invoke({"messages": [("user", TASK.prompt)]}, context=RunContext(session=session))
    assert (state["cmat"]["stopped"], state["cmat"]["answer"], session.score()) == ("tokens", '["done"]', 1.0)


def test_an_action_that_no_budget_was_left_for_does_not_run():
    session = ENV.open(TASK)
    graph = create_cmat_graph(script(counted(operation(RIGHT, "Set."), 100)), budget=Budget(tokens=50)).compile()
    state = graph.invoke({"messages": [("user", TASK.prompt)]}, context=RunContext(session=session))
    assert (state["cmat"]["stopped"], state["cmat"]["done_so_far"], session.score()) == ("tokens", [], 0.0)


def test_the_smallest_budget_asks_nobody_twice():
    model, checker = script("a"), script("approve")
    state = ask(model, checker=checker, budget=Budget(tokens=1))
    assert (state["stopped"], len(model.calls), len(checker.calls)) == ("tokens", 1, 0)


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"seconds": -1.0}, {"cost": float("nan"), "prices": {"x": (1, 1)}}])
def test_a_budget_that_allows_nothing_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="allows nothing"):
        create_cmat_graph(script("4"), budget=Budget(**wrong))


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ({"human": ("boss",)}, "known: user, checker"),
        ({"checks": ("sometimes",)}, "known: before, after"),
        ({"human": "checker"}, r"human=\('checker',\)"),
    ],
)
def test_words_that_mean_nothing_are_refused(wrong, fix):
    with pytest.raises(ConfigurationError, match=fix):
        create_cmat_graph(script("4"), **wrong)
