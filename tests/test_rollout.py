from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langgraph.store.memory import InMemoryStore

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.errors import EngineBusyError, EngineError, PromptTooLongError, ServerError, TraceStoreError
from cmat_graph.evaluation import ArmResult, compare, evaluate, four_arms, summarise
from cmat_graph.models import ExpertChatModel
from cmat_graph.resuming import finished
from cmat_graph.rollout import Outcome
from cmat_graph.testing import ScriptedChatModel


class Failing(BaseChatModel):
    @property
    def _llm_type(self) -> str:
        return "failing"

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("the line is dead")


def expert(env):
    return create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations()), checker="probes").compile()


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_every_task_is_played_once_and_in_order(env, traces, concurrency):
    outcomes = run_episodes(expert(env), env.tasks(), env=env, traces=traces, concurrency=concurrency)
    assert [outcome.task for outcome in outcomes] == env.tasks()
    assert all(outcome.reward == 1.0 for outcome in outcomes)
    assert sorted(e.task.id for e in traces.episodes()) == sorted(t.id for t in env.tasks())


def test_no_tasks_make_no_outcomes(env):
    assert run_episodes(expert(env), [], env=env) == []


def test_a_model_that_fails_is_data(env, traces):
    outcomes = run_episodes(create_cmat_graph(Failing()).compile(), env.tasks()[:3], env=env, traces=traces)
    assert {outcome.stopped for outcome in outcomes} == {"error"}
    assert [e.error for e in traces.episodes()] == ["ConnectionError: the line is dead"] * 3


@pytest.mark.parametrize("kind", [EngineBusyError, EngineError, PromptTooLongError, ServerError])
def test_a_model_that_cannot_answer_this_episode_ends_this_one_only(env, kind):
    graph = create_cmat_graph(ScriptedChatModel(replies=[kind("not this one")])).compile()
    outcomes = run_episodes(graph, env.tasks()[:2], env=env)
    assert [outcome.error for outcome in outcomes] == [f"{kind.__name__}: not this one"] * 2


def test_a_broken_tool_raises_and_keeps_what_was_recorded(env, traces):
    def breaking(outcome: Outcome) -> None:
        raise TraceStoreError("the disk is full")

    with pytest.raises(TraceStoreError):
        run_episodes(expert(env), env.tasks(), env=env, traces=traces, concurrency=2, report=breaking)
    finished = [e for e in traces.episodes() if e.reward == 1.0]
    assert 1 <= len(finished) < len(env.tasks())


def test_a_stop_in_the_middle_keeps_what_was_recorded(env, traces):
    def stop(outcome: Outcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_episodes(expert(env), env.tasks(), env=env, traces=traces, concurrency=2, report=stop)
    rewards = [e.reward for e in traces.episodes()]
    assert rewards
    assert set(rewards) == {1.0}


def test_an_episode_reads_back_as_it_was_played(env, traces):
    task = env.tasks("train")[0]
    (outcome,) = run_episodes(expert(env), [task], env=env, traces=traces, run="demo", settings={"a": 1})
    (episode,) = traces.episodes(run="demo")
    assert (episode.id, episode.task, episode.solved) == (outcome.episode_id, task, True)
    assert (episode.settings, episode.stopped, episode.attempts) == ({"a": 1}, "passed", 1)
    assert (episode.status, outcome.status) == ("completed", "completed")
    assert finished(traces, [task], run="demo", env=env) == {task.id: outcome}
    first, last = episode.steps
    assert [m["role"] for m in first.messages] == ["system", "user"]
    assert first.messages[1]["content"] == task.prompt
    assert last.messages[2]["content"] == first.completion
    assert last.messages[3]["content"] == first.observation
    assert (first.model, first.node, first.before["decision"]) == ("expert", "assistant", "approve")


def test_no_gold_reaches_any_prompt(env, traces):
    """The gold replies of a task must not show in what any node reads while everything about it fails."""
    talk = ScriptedChatModel(replies=["Thought: none\nAction: Operation\n```sql\nSELECT 1\n```", "OK", "revise"])
    graph = create_cmat_graph(talk, checker=talk, reflector=talk, max_attempts=2).compile()
    tasks = env.tasks("train")[:6]
    run_episodes(graph, tasks, env=env, traces=traces, concurrency=1)
    read = {e.task.id: "\n".join(m["content"] for s in e.steps for m in s.messages) for e in traces.episodes()}
    for task in tasks:
        statement = env.demonstrations()[task.prompt][0].split("```sql\n")[1].split("\n```")[0]
        assert task.prompt in read[task.id]
        assert statement not in read[task.id]


def test_a_task_with_a_faulty_gold_fails_alone(tmp_path, traces):
    table = {"table_name": "t", "table_info": {"columns": [{"name": "a"}], "rows": [["1"]]}}
    rows = [
        {"id": "bad", "type": "UPDATE", "description": "?", "label": ["UPDATE nowhere SET a = 1"], "table": table},
        {"id": "good", "type": "UPDATE", "description": "!", "label": ["UPDATE t SET a = 2"], "table": table},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    env = load_env(tasks=tmp_path / "t.jsonl")
    bad, good = run_episodes(expert(env), env.tasks(), env=env, traces=traces)
    assert (bad.stopped, good.reward) == ("error", 1.0)
    assert "'bad': its gold statement fails" in bad.error


def test_failed_attempts_leave_their_lessons(env, traces):
    graph = create_cmat_graph(ScriptedChatModel(replies=["OK"]), store=InMemoryStore(), max_attempts=2).compile()
    run_episodes(graph, env.tasks()[:1], env=env, traces=traces)
    (episode,) = traces.episodes()
    assert [r.attempt for r in episode.reflections] == [1, 2]
    assert not episode.solved


def test_arms_play_the_same_tasks(env):
    good = ExpertChatModel(demonstrations=env.demonstrations())
    bad = ScriptedChatModel(replies=["OK"])
    results = evaluate(four_arms(bad, good), env.tasks("test"), env=env)
    assert [(r.name, r.success_rate) for r in results] == [
        ("base", 0.0),
        ("base+loop", 0.0),
        ("tuned", 1.0),
        ("tuned+loop", 1.0),
    ]
    assert compare(results[2], results[0]).clear


def test_rates_come_with_their_standard_error(env):
    tasks = env.tasks()[:4]
    outcomes = [
        Outcome(task=t, reward=r, stopped="passed", attempts=1) for t, r in zip(tasks, (1, 1, 1, 0.5), strict=True)
    ]
    result = summarise("x", outcomes, env)
    assert (result.success_rate, result.n) == (0.75, 4)
    assert result.stderr == pytest.approx(0.25)


def test_no_difference_is_not_clear():
    arm = ArmResult(name="a", success_rate=0.5, stderr=0.1, n=2, score={}, stopped={}, rewards=(1.0, 0.0))
    assert not compare(arm, arm).clear
