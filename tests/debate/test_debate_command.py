"""`cmat-graph debate`, in this process and light in another."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from debaters import Agent

from cmat_graph.cli import main
from cmat_graph.cli.debate import _print_arms
from cmat_graph.debate import DebateSettings, Seats
from cmat_graph.debate.comparing import compare_debate
from cmat_graph.envs import load_env
from cmat_graph.errors import ConfigurationError, EngineError
from cmat_graph.traces import SQLTraceStore

SMALL = ["--base", "nano", "--max-tokens", 6, "--agents", 2]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cmat-graph", "debate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def test_help_loads_neither_langgraph_nor_torch():
    code = (
        "import sys; from click.testing import CliRunner; from cmat_graph.cli import cli; "
        "told = CliRunner().invoke(cli, ['debate', '--help']).output; assert '--equal-calls' in told, told; "
        "print([name for name in ('langgraph', 'torch', 'langchain_core', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_question_is_shown_round_by_round(call):
    code, out, err = call("What is 1+1?", *SMALL)
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith(("Round", "Vote", "Answer"))][:2] == [
        "Round 1",
        "Round 2",
    ]
    assert out.count("generator-") == 2
    assert "6 calls" in err


def test_a_question_is_told_to_scripts_and_repeated_by_its_seed(call):
    told = [json.loads(call("What is 1+1?", *SMALL, "--temperature", 9, "--json", "--seed", s)[1]) for s in (1, 1, 2)]
    assert told[0] == told[1]
    assert told[0]["turns"] != told[2]["turns"]
    assert (told[0]["calls"], len(told[0]["turns"]), len(told[0]["summaries"])) == (6, 4, 2)


def test_a_set_is_measured_beside_the_vote_and_goes_on(call, tmp_path):
    words = ["--tasks", "builtin", "--size", 8, "--limit", 2, *SMALL, "--traces", "sqlite:///t.db", "--json"]
    code, out, _ = call(*words)
    result = json.loads(out)
    assert code == 0
    assert [(arm["name"], arm["n"], arm["calls"]) for arm in result["arms"]] == [
        ("one call", 2, 1.0), ("vote of 6", 2, 6.0), ("debate", 2, 6.0),
    ]  # fmt: skip
    assert result["pack"] == "arithmetic"
    recorded = [(e.run, len(e.steps), e.reward) for e in SQLTraceStore(f"sqlite:///{tmp_path / 't.db'}").episodes()]
    assert [run for run, *_ in recorded] == ["debate"] * 2 + ["debate/vote"] * 2
    assert all(reward in (0.0, 1.0) for *_, reward in recorded)
    again = json.loads(call(*words)[1])
    assert again["arms"] == result["arms"]
    assert len(list(SQLTraceStore(f"sqlite:///{tmp_path / 't.db'}").episodes())) == 4


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ([], "give either a QUESTION or --tasks"),
        (["Why?", "--tasks", "builtin"], "give either a QUESTION or --tasks"),
        (["Why?", "--society", "none"], "no society in none"),
        (["Why?", "--base", "nano", "--temperature", "nan"], "temperature is a number between 0 and 100"),
        (["Why?", "--iteration", "2"], "give --society DIR"),
        (["Why?", "--base", "nano", "--generator", "generator-0/none"], "generator-0/none"),
        (["--tasks", "missing.jsonl"], "missing.jsonl"),
        (["--tasks", "builtin", "--env", "database", "--base", "nano"], "choose some: --pack"),
        ([""], "is empty"),
        (["1+" * 30_000 + "1?"], "at most 50,000 can be asked"),
        (["--tasks", "builtin", "--pack", "choice"], "have answers of the kind 'number'"),
    ],
)
def test_mistakes_end_in_one_line_that_names_the_fix(call, words, fix):
    code, out, err = call(*words)
    assert (code, out) == (1, "")
    assert fix in err
    assert "Traceback" not in err


# -- what is compared -------------------------------------------------------------------------------------------


def test_accuracies_and_their_errors_are_those_of_the_hand_count():
    env = load_env("questions", size=16)
    tasks = env.tasks("test")[:4]
    gold = {task.prompt: env.demonstrations()[task.prompt][0] for task in tasks}

    def knows(count):
        def say(prompt):
            known = next((task for task in tasks[:count] if task.prompt in prompt[-1]["content"]), None)
            return gold[known.prompt] if known else "No idea."

        return Agent(script=say)

    seats = Seats.of([knows(2), knows(3), knows(3)], [knows(3)] * 3, summarise=False)
    single, vote, debate = compare_debate(tasks, seats, env=env, settings=DebateSettings(summarise=False))
    assert (single.accuracy, single.calls) == (0.5, 1.0)
    assert (vote.name, vote.accuracy, vote.calls) == ("vote of 6", 0.5, 6.0)
    assert (debate.accuracy, debate.calls, debate.scores) == (0.75, 6.0, (1.0, 1.0, 1.0, 0.0))
    assert vote.stderr == pytest.approx((0.5 * 0.5 / 4) ** 0.5)
    assert debate.stderr == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_open_questions_have_prompts_and_a_mixed_file_has_none(call, tmp_path):
    rows = [{"question": f"Where is house {n}?", "answer": "Oslo", "split": "test"} for n in range(2)]
    (tmp_path / "open.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = call("--tasks", "open.jsonl", *SMALL, "--no-equal-calls", "--json")
    assert (code, json.loads(out)["pack"]) == (0, "open")
    rows.append({"question": "How many?", "answer": "7", "split": "test"})
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, _, err = call("--tasks", "mixed.jsonl", *SMALL)
    assert (code, "several kinds" in err) == (1, True)


def test_calls_that_fail_are_counted_and_a_model_that_is_away_is_not_measured(capsys):
    env = load_env("questions", size=8)
    tasks = env.tasks("test")[:2]
    away = Agent(script=[RuntimeError("401 wrong API key")])
    with pytest.raises(EngineError, match="401 wrong API key"):
        compare_debate(tasks, Seats.of(away), env=env)
    sure = Agent(script=["Answer: 1"])
    seats = Seats.of([sure, sure, away], [sure] * 3, summarise=False)
    arms = compare_debate(tasks, seats, env=env, settings=DebateSettings(summarise=False))
    assert [arm.to_json()["failed"] for arm in arms] == [0, 0, 2]
    _print_arms(arms, "two questions")
    assert "debate: 2 calls failed" in capsys.readouterr().out


def test_the_vote_gets_as_many_calls_as_the_debate_really_took():
    env = load_env("questions", size=8)
    seats = Seats.of(Agent(script=["Answer: 1"]))
    quick = DebateSettings(stop_when_unanimous=True)
    arms = compare_debate(env.tasks("test")[:2], seats, env=env, settings=quick)
    assert [arm.calls for arm in arms] == [1.0, 3.0, 3.0]
    with pytest.raises(ConfigurationError, match="no questions to compare"):
        compare_debate([], seats, env=env)
