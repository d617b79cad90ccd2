from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph import create_cmat_graph
from cmat_graph.assignment import FLOOR, History, assign, histories, run_shared
from cmat_graph.errors import ConfigurationError, TraceStoreError
from cmat_graph.models import ExpertChatModel
from cmat_graph.rollout import Outcome, run_episodes
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.types import Task

WEIGHTS = st.floats(FLOOR, 1.0)
TEAMS = st.dictionaries(st.sampled_from("abcdefgh"), WEIGHTS, min_size=1)


def some_tasks(n: int) -> list[Task]:
    return [Task(id=str(i), prompt="?") for i in range(n)]


def loads(shares: dict[str, list[Task]]) -> dict[str, int]:
    return {agent: len(share) for agent, share in shares.items()}


def expert(env):
    return create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations()), checker="probes").compile()


def hopeless():
    return create_cmat_graph(ScriptedChatModel(replies=["OK"]), max_attempts=1).compile()


@st.composite
def restricted(draw: st.DrawFn) -> tuple[list[Task], dict[str, float], dict[str, Any]]:
    """Tasks that some agents cannot play, though each task can be played by somebody."""
    weights = draw(TEAMS)
    groups = draw(st.lists(st.sets(st.sampled_from(sorted(weights)), min_size=1), max_size=40))
    able = {agent: lambda task, agent=agent: agent in groups[int(task.id)] for agent in weights}
    return some_tasks(len(groups)), weights, able


# Weights


@given(st.lists(st.floats(0, 1)))
def test_a_weight_is_the_share_of_completed_episodes(rewards):
    weight = History().extended(rewards).weight
    solved = sum(reward == 1.0 for reward in rewards)
    assert FLOOR <= weight <= 1.0
    assert weight == (max(FLOOR, solved / len(rewards)) if rewards else 1.0)


def test_a_history_is_of_the_agents_own_finished_episodes(env, traces):
    run_episodes(expert(env), env.tasks()[:3], env=env, traces=traces, run="good")
    run_episodes(hopeless(), env.tasks()[:2], env=env, traces=traces, run="bad")
    run_episodes(expert(env), env.tasks()[:4], env=env, traces=traces)
    traces.start_episode("running", env=env.name, task=env.tasks()[0], run="good", settings={})
    assert histories(traces, ["good", "bad", "new"]) == {
        "good": History(completed=3, total=3),
        "bad": History(completed=0, total=2),
        "new": History(),
    }


# Assignment


@given(restricted())
def test_each_task_goes_to_one_agent_that_can_play_it(case):
    tasks, weights, able = case
    shares = assign(tasks, weights, able=able)
    assert sorted(int(task.id) for share in shares.values() for task in share) == list(range(len(tasks)))
    assert all(able[agent](task) for agent, share in shares.items() for task in share)
    assert all(share == [task for task in tasks if task in share] for share in shares.values())
    assert list(shares) == list(weights)


@given(TEAMS, st.integers(0, 200))
def test_shares_are_in_proportion_to_the_weights(weights, n):
    got = loads(assign(some_tasks(n), weights))
    quotas = {agent: n * weight / sum(weights.values()) for agent, weight in weights.items()}
    if min(quotas.values()) >= 1:  # else somebody gives a task to who would have none
        assert all(abs(got[agent] - quotas[agent]) < 1 + 1e-9 for agent in weights)
    assert all(got[a] >= got[b] for a, b in product(weights, repeat=2) if weights[a] > weights[b] * (1 + 1e-9))


@given(TEAMS, st.integers(0, 50))
def test_nobody_starves_while_there_is_a_task_for_each(weights, n):
    got = loads(assign(some_tasks(n), weights))
    assert (min(got.values()) >= 1) == (n >= len(weights))


@given(restricted())
def test_shares_are_as_near_to_the_weights_as_the_tasks_allow(case):
    """Wherever tasks could be passed on, giver and taker are at the same level but for the rounding."""
    tasks, weights, able = case
    shares = assign(tasks, weights, able=able)
    got = loads(shares)
    passes = {(a, b) for a, b in product(weights, repeat=2) if any(able[b](task) for task in shares[a])}
    for middle, a, b in product(weights, repeat=3):  # in this order the chains are complete after one round
        if (a, middle) in passes and (middle, b) in passes:
            passes.add((a, b))
    for giver, taker in passes:
        fair = (got[giver] + got[taker]) * weights[giver] / (weights[giver] + weights[taker])
        assert got[giver] < fair + 2


def test_who_can_play_little_plays_that_and_the_rest_share_by_weight():
    weights = {"sql": 1.0, "web": 1.0, "all": 0.5}
    able = {"sql": lambda task: int(task.id) < 2, "web": lambda task: int(task.id) >= 2}
    assert loads(assign(some_tasks(32), weights, able=able)) == {"sql": 2, "web": 20, "all": 10}


def test_a_task_for_one_agent_alone_is_not_dropped():
    able = {"strong": lambda task: False}
    assert loads(assign(some_tasks(50), {"strong": 1.0, "weak": FLOOR}, able=able)) == {"strong": 0, "weak": 50}


def test_a_capacity_holds_while_the_others_have_room():
    weights = {"a": 1.0, "b": 1.0, "c": 1.0}
    assert loads(assign(some_tasks(30), weights, capacities={"a": 4})) == {"a": 4, "b": 13, "c": 13}
    only_a = {"b": lambda task: False, "c": lambda task: int(task.id) < 20}
    assert loads(assign(some_tasks(30), weights, capacities={"a": 4}, able=only_a)) == {"a": 10, "b": 0, "c": 20}
    assert loads(assign(some_tasks(30), weights, capacities=dict.fromkeys("abc", 4))) == {"a": 10, "b": 10, "c": 10}


@given(restricted(), st.data())
def test_capacities_never_drop_a_task(case, data):
    tasks, weights, able = case
    capacities = data.draw(st.dictionaries(st.sampled_from(sorted(weights)), st.integers(0, 10)))
    got = loads(assign(tasks, weights, able=able, capacities=capacities))
    assert sum(got.values()) == len(tasks)
    free = loads(assign(tasks, weights, capacities=capacities))
    if len(tasks) <= sum(capacities.get(agent, len(tasks)) for agent in weights):
        assert all(free[agent] <= capacity for agent, capacity in capacities.items())


def test_both_ends_of_a_sorted_list_go_to_everybody():
    shares = assign(some_tasks(60), {"a": 1.0, "b": 0.5})
    for share in shares.values():
        early = sum(int(task.id) < 30 for task in share)
        assert abs(early - len(share) / 2) <= 1


def test_a_task_that_nobody_can_play_is_named():
    with pytest.raises(ConfigurationError, match="no agent can play task '2'"):
        assign(some_tasks(4), {"a": 1.0}, able={"a": lambda task: task.id != "2"})


@pytest.mark.parametrize(
    ("weights", "more", "says"),
    [
        ({}, {}, "no agent"),
        ({"a": 0.0}, {}, "positive"),
        ({"a": float("nan")}, {}, "positive"),
        ({"a": 1.0}, {"able": {"b": bool}}, "able names no agent"),
        ({"a": 1.0}, {"capacities": {"b": 1}}, "capacities name no agent"),
        ({"a": 1.0}, {"capacities": {"a": -1}}, "negative"),
    ],
)
def test_what_cannot_be_is_refused(weights, more, says):
    with pytest.raises(ConfigurationError, match=says):
        assign(some_tasks(2), weights, **more)


def test_the_same_question_has_the_same_answer_in_every_process():
    code = (
        "from random import Random\n"
        "from cmat_graph.assignment import assign\n"
        "from cmat_graph.types import Task\n"
        "chance, tasks = Random(1), [Task(id=str(i), prompt='?') for i in range(60)]\n"
        "weights = dict.fromkeys('abcdefg', 0.5)\n"
        "for _ in range(10):\n"
        "    groups = [chance.sample('abcdefg', 3) for _ in tasks]\n"
        "    able = {a: (lambda task, a=a: a in groups[int(task.id)]) for a in weights}\n"
        "    print([[task.id for task in share] for share in assign(tasks, weights, able=able).values()])"
    )
    answers = set()
    for seed in ("1", "2"):
        environ = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True)
        answers.add(done.stdout)
    assert len(answers) == 1


def test_five_thousand_tasks_are_handed_out_in_a_moment():
    weights = {agent: 0.1 + i / 10 for i, agent in enumerate("abcdefgh")}
    able = {a: lambda task, i=i: int(task.id) * 2654435761 >> (i + 4) & 1 == 1 for i, a in enumerate("abcdefg")}
    started = time.process_time()
    shares = assign(some_tasks(5_000), weights, able=able)
    assert time.process_time() - started < 3
    assert sum(loads(shares).values()) == 5_000


# Playing


def test_tasks_are_played_once_and_come_back_in_order(env, traces):
    graphs = {"a": expert(env), "b": expert(env), "c": expert(env)}
    outcomes = run_shared(graphs, env.tasks(), env=env, traces=traces, wave=20, concurrency=6)
    assert [outcome.task for outcome in outcomes] == env.tasks()
    assert Counter(e.task.id for e in traces.episodes()) == Counter(task.id for task in env.tasks())
    counts = [history.total for history in histories(traces, graphs).values()]
    assert max(counts) - min(counts) <= len(env.tasks()) / 20 + 1


def test_the_next_wave_goes_to_who_solved_the_last(env, traces):
    tasks = env.tasks()[:44]
    outcomes = run_shared(
        {"good": expert(env), "bad": hopeless()}, tasks, env=env, traces=traces, wave=22, prefix="try-"
    )
    assert [outcome.task for outcome in outcomes] == tasks
    first, second = (Counter(o.reward >= 1.0 for o in wave) for wave in (outcomes[:22], outcomes[22:]))
    assert first == {True: 11, False: 11}
    assert second == {True: 20, False: 2}  # 1.0 to 0.1, and the floor still gives it a chance
    assert histories(traces, ["try-bad"])["try-bad"] == History(completed=0, total=13)


def test_what_an_agent_did_before_counts_from_the_first_wave(env, traces):
    graphs = {"good": expert(env), "bad": hopeless()}
    run_episodes(graphs["bad"], env.tasks()[:2], env=env, traces=traces, run="bad")
    outcomes = run_shared(graphs, env.tasks()[:22], env=env, traces=traces)
    assert Counter(outcome.reward >= 1.0 for outcome in outcomes) == {True: 20, False: 2}


def test_without_traces_all_agents_are_alike(env):
    outcomes = run_shared({"good": expert(env), "bad": hopeless()}, env.tasks()[:20], env=env, wave=4)
    assert sum(outcome.reward >= 1.0 for outcome in outcomes) == 10


def test_an_agent_plays_only_what_it_can(env, traces):
    kinds = {task.category for task in env.tasks()}
    able = {kind: lambda task, kind=kind: task.category == kind for kind in kinds}
    run_shared(dict.fromkeys(kinds, expert(env)), env.tasks(), env=env, traces=traces, able=able)
    assert all(episode.run == episode.task.category for episode in traces.episodes())


def test_a_task_that_nobody_can_play_is_found_before_the_first_wave(env, traces):
    last = env.tasks()[-1]
    with pytest.raises(ConfigurationError, match=last.id):
        run_shared({"a": expert(env)}, env.tasks(), env=env, traces=traces, able={"a": lambda t: t != last}, wave=8)
    assert list(traces.episodes()) == []


def test_no_tasks_make_no_outcomes(env, traces):
    assert run_shared({"a": expert(env)}, [], env=env) == []
    assert run_shared({"a": expert(env)}, [], env=env, traces=traces) == []


def test_shares_are_played_at_the_same_time(env):
    meeting = threading.Barrier(3, timeout=60)

    class Waiting(ExpertChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            meeting.wait()  # breaks when the three agents do not think at once
            return super()._generate(*args, **kwargs)

    waiting = create_cmat_graph(Waiting(demonstrations=env.demonstrations())).compile()
    tasks = [task for task in env.tasks() if len(env.demonstrations()[task.prompt]) == 2][:3]
    outcomes = run_shared(dict.fromkeys("abc", waiting), tasks, env=env, concurrency=3)
    assert [outcome.reward for outcome in outcomes] == [1.0] * 3


def test_reports_come_in_the_callers_thread(env):
    seen: list[tuple[str, threading.Thread]] = []
    graphs = {"a": expert(env), "b": expert(env)}
    run_shared(
        graphs, env.tasks(), env=env, report=lambda o: seen.append((o.task.id, threading.current_thread())), wave=16
    )
    assert sorted(task for task, _ in seen) == sorted(task.id for task in env.tasks())
    assert {thread for _, thread in seen} == {threading.current_thread()}


@pytest.mark.parametrize("broken", [TraceStoreError, KeyboardInterrupt])
def test_what_breaks_one_share_stops_them_all(env, traces, broken):
    def breaking(outcome: Outcome) -> None:
        raise broken("the disk is full")

    graphs = {"a": expert(env), "b": expert(env)}
    with pytest.raises(broken):
        run_shared(graphs, env.tasks(), env=env, traces=traces, concurrency=2, report=breaking)
    rewards = [e.reward for e in traces.episodes()]
    assert 1 <= len(rewards) < len(env.tasks())
    assert set(rewards) == {1.0}
