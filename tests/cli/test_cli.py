"""The command line as a contract: what scripts read, and what a mistake says."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import pytest

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.cli import COMMANDS, bench, cli

ROOT = Path(__file__).parents[2]


def commands():
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        yield (name,), command
        if isinstance(command, click.Group):
            yield from (((name, sub), command.commands[sub]) for sub in command.commands)


@pytest.mark.parametrize(
    ("words", "command"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_with_an_example(words, command, call):
    code, out, _ = call(*words, "--help")
    assert code == 0
    assert f"cmat-graph {' '.join(words)}" in out.split("Example", 1)[1]


def test_the_readme_shows_every_command():
    readme = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"cmat-graph {name}" not in readme] == []


def test_run_prints_its_result_last_and_nothing_else(call):
    code, out, err = call("run", "--assistant", "expert", "--size", 12, "--json", "--traces", "sqlite:///t.db")
    assert code == 0
    result = json.loads(out)
    assert set(result) == {"episodes", "success_rate", "stderr", "score", "stopped", "traces"}
    assert (result["episodes"], result["success_rate"], result["score"]["main"]) == (12, 1.0, 1.0)
    assert result["stopped"] == {"passed": 12}
    assert "traces: sqlite:///t.db" in err


@pytest.mark.slow
def test_a_small_model_hands_over_to_a_fallback_whatever_its_window_left_out(call):
    words = ["run", "--fallback", "expert", "--fallback-below", 0.9, "--size", 48, "--attempts", 2, "--json"]
    code, out, _ = call(*words, "--traces", "sqlite:///t.db")
    result = json.loads(out)
    assert (code, result["episodes"]) == (0, 48)
    assert result["handed_over"]["unsure"] > 0
    assert result["success_rate"] > 0.8


def test_run_reads_a_real_task_file(call, dbbench):
    code, out, _ = call("run", "--tasks", dbbench, "--assistant", "expert", "--json", "--limit", 40)
    result = json.loads(out)
    assert (code, result["episodes"]) == (0, 40)
    assert result["score"]["SELECT"] == 1.0


def test_a_run_can_be_resumed(call):
    call("run", "--assistant", "expert", "--size", 12, "--limit", 5)
    _, out, _ = call("run", "--assistant", "expert", "--size", 12, "--resume", "--json")
    assert json.loads(out)["episodes"] == 12
    with sqlite3.connect("traces.db") as connection:
        assert connection.execute("SELECT count(*) FROM episodes").fetchone() == (12,)


def test_a_run_is_not_resumed_with_other_settings(call):
    call("run", "--assistant", "expert", "--size", 12, "--limit", 5)
    code, _, err = call("run", "--assistant", "expert", "--size", 12, "--attempts", 3, "--resume")
    assert code == 1
    assert "give another run label" in err


def test_a_run_in_which_everything_broke_off_says_so(call):
    table = {"table_name": "t", "table_info": {"columns": [{"name": "a"}]}}
    task = {"id": "1", "type": "UPDATE", "description": "?", "label": ["no gold"], "table": table}
    Path("own.jsonl").write_text(json.dumps(task))
    code, out, err = call("run", "--tasks", "own.jsonl", "--assistant", "expert", "--json")
    assert code == 1
    assert json.loads(out)["stopped"] == {"error": 1}
    assert "1 of 1 episodes broke off" in err


def test_what_was_recorded_can_be_looked_at(call):
    call("run", "--assistant", "expert", "--size", 4)
    assert json.loads(call("traces", "list", "--json")[1])[0]["solved"] == 4
    shown = call("traces", "show", "--limit", 1)[1]
    assert "Action: Operation" in shown
    assert "reward 1" in shown
    assert json.loads(call("traces", "show", "--json", "--limit", 1)[1])["reward"] == 1.0
    assert call("traces", "show", "nobody")[0] == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--tasks", "missing.jsonl"], "no task file at missing.jsonl"),
        (["run", "--tasks", "bad.jsonl"], "bad.jsonl, line 2: not valid JSON"),
        (["run", "--assistant", "unknown"], "no model 'unknown'"),
        (["run", "--adapter", "none"], "no adapter 'none' in adapters"),
        (["run", "--env", "moon"], "unknown environment 'moon'; known: database"),
        (["run", "--split", "dev"], "no tasks in split 'dev'"),
        (["run", "--traces", "sqlite:////no/such/place/t.db"], "check that the path exists"),
        (["run", "--traces", "sqlite:///bad.jsonl"], "no trace database"),
        (["run", "--tasks", "own.jsonl", "--url", "sqlite:///missing.db", "--assistant", "expert"], "there is no file"),
        (["run", "--memory", "bad.jsonl"], "cannot open the lesson store"),
        (["evaluate", "--adapter", "none"], "no adapter 'none'"),
        (["evaluate", "--base", "unknown"], "no model 'unknown'"),
        (["run", "--fallback-below", "0.5"], "name it with --fallback"),
        (["evaluate", "--fallback-below", "0.5"], "name it with --fallback"),
        (["distill"], "no trace database at traces.db"),
        (["distill", "--dataset", "nowhere"], "no dataset in nowhere"),
        (["distill", "--dataset", "nowhere", "--name", "../x"], "no name for a node or adapter"),
        (["run", "--assistant", "nowhere/"], "no model 'nowhere/'"),
        (["improve", "--nodes", "user"], "no node 'user' to improve"),
        (["improve", "--objective", "dpo"], "--start previous"),
        (["distill", "--epochs", "0"], "must be positive"),
        (["adapters", "show", "none"], "no adapter 'none'"),
        (["traces", "show"], "no trace database at traces.db"),
        (["evaluate", "--out", "nowhere/x.json"], "no folder for --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_that_names_the_fix(call, words, says):
    Path("bad.jsonl").write_text('{"id": "1", "description": "?", "label": [], "table": null}\n{broken\n')
    Path("own.jsonl").write_text('{"id": "1", "description": "?", "label": ["x"]}\n')
    code, out, err = call(*words)
    last = err.strip().splitlines()[-1]
    assert code == 1
    assert last.startswith("error: ")
    assert says in last
    assert out == ""


def test_a_typing_mistake_shows_usage(call):
    assert call("rum")[0] == 2
    code, _, err = call("run", "--no-such-option")
    assert code == 2
    assert "--help" in err


def test_ctrl_c_stops_cleanly_and_keeps_what_was_recorded(tmp_path):
    words = [
        sys.executable,
        "-m",
        "cmat_graph.cli",
        "run",
        "--assistant",
        "expert",
        "--size",
        "4000",
        "--concurrency",
        "2",
    ]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    recorded = 0
    while recorded < 20 and time.monotonic() < until:
        time.sleep(0.2)
        if (tmp_path / "traces.db").exists():
            recorded = _finished(tmp_path / "traces.db")
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert _finished(tmp_path / "traces.db") >= recorded >= 20


def _finished(path):
    try:
        with sqlite3.connect(path) as connection:
            return connection.execute("SELECT count(*) FROM episodes WHERE finished IS NOT NULL").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_distil_evaluate_and_swap_from_the_shell(call):
    call("run", "--assistant", "expert", "--split", "train", "--size", 32, "--run", "expert")
    code, out, _ = call("distill", "--run", "expert", "--size", 32, "--epochs", 1, "--json")
    card = json.loads(out)
    assert (code, card["node"], card["base"]) == (0, "assistant", "nano")
    assert card["gate"]["verdict"].startswith(("promoted: ", "kept: not better"))
    code, out, _ = call("evaluate", "--adapter", "assistant", "--size", 32, "--limit", 4, "--json")
    arms = json.loads(out)["arms"]
    assert [arm["name"] for arm in arms] == ["base", "base+loop", "tuned", "tuned+loop"]
    assert all({"success_rate", "stderr", "n"} <= set(arm) for arm in arms)
    assert json.loads(Path("evaluation.json").read_text())["adapter"] == f"assistant/{card['name']}"
    assert call("adapters", "promote", "assistant")[0] == 0
    assert call("adapters", "list")[1].startswith("* assistant/")
    assert call("run", "--adapter", "assistant", "--size", 32, "--limit", 2)[0] == 0
    assert "by hand" in call("adapters", "history")[1]
    assert "vllm serve" in call("adapters", "export", card["name"])[1]
    assert call("adapters", "merge", card["name"], "merged")[0] == 0
    assert call("run", "--assistant", "merged", "--size", 32, "--limit", 1)[0] == 0
    code, out, _ = call("adapters", "compare", card["name"], card["name"], "--json")
    assert json.loads(out)["differ"] == {}
    while json.loads(call("adapters", "history", "--json")[1])[-1]["name"]:
        assert call("adapters", "rollback")[0] == 0
    code, _, err = call("run", "--adapter", "assistant", "--size", 32)
    assert (code, "rolled back to its base" in err) == (1, True)


@pytest.mark.slow
def test_the_demo_runs_twice_in_one_folder(call, monkeypatch):
    from cmat_graph import demo

    monkeypatch.setattr("cmat_graph.cli.demo.QUICK", demo.DemoSize(tasks=32, practice=1, test=2, epochs=1))
    for _ in range(2):
        code, out, err = call("demo", "--quick", "--json")
        assert code == 0
        assert [arm["n"] for arm in json.loads(out)["arms"]] == [2, 2, 2, 2]
        assert "Try next" in err
    assert {p.name for p in Path("cmat-demo").iterdir()} >= {"traces.db", "reflections", "adapters", "evaluation.json"}


def test_prompts_are_shown_and_copied_out_to_be_changed(call, tmp_path):
    code, out, _ = call("prompts", "checker", "--json")
    shown = json.loads(out)
    assert (code, shown["node"], shown["version"]) == (0, "checker", "checker@2")
    assert call("prompts", "--export", "mine")[0] == 0
    assert (tmp_path / "mine" / "checker.md").read_text() == shown["text"]
    code, _, err = call("prompts", "--export", "mine")
    assert code == 1
    assert "is there already" in err


def test_the_help_of_bench_lists_the_benchmarks_and_imports_none(call):
    code, out, _ = call("bench", "--help")
    assert code == 0
    listed = out[out.index("Benchmarks:") :]
    assert all(f"  {file.stem} " in listed for file in bench.FOLDER.glob("[!_]*.py"))
    assert "_shared" not in listed
    assert bench.PACKAGE not in sys.modules or not hasattr(sys.modules[bench.PACKAGE], "tuning")


@pytest.fixture
def adapters(tmp_path):
    """Register two untrained adapters for each of three nodes, of which the graph has two."""
    pytest.importorskip("peft")
    import small_adapters

    registry = AdapterRegistry(tmp_path / "adapters")
    for node in ("assistant", "checker", "mine"):
        small_adapters.register(registry, node=node)
    return registry


@pytest.mark.slow
def test_an_adapter_plays_in_the_seat_it_was_trained_for(call, adapters):
    words = ("run", "--assistant", "expert", "--adapter", "checker/silent", "--size", 8, "--limit", 1)
    code, out, err = call(*words, "--run", "seated", "--json")
    assert (code, json.loads(out)["episodes"]) == (0, 1), err
    episode = json.loads(call("traces", "show", "--run", "seated", "--json")[1])
    seats = {(step["node"], step["adapter"]) for step in episode["steps"]}
    assert seats == {("assistant", ""), ("checker", "checker/silent")}
    assert episode["settings"]["checker_adapter"] == "checker/silent"


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_an_adapter_without_a_seat_is_refused(call, adapters, command):
    told = call(command, "--adapter", "mine/same", "--size", 40)[2]
    assert "no seat 'mine' to put an adapter in; seats: assistant, checker, reflect" in told
    told = call(command, "--adapter", "assistant/same", "--adapter", "assistant/silent", "--size", 40)[2]
    assert "assistant/same and assistant/silent are both for the assistant's seat" in told
    assert "say which" in call(command, "--adapter", "same", "--size", 40)[2]
    if command == "run":
        told = call("run", "--adapter", "checker/same", "--checker", "none", "--size", 40)[2]
        assert "--checker none leaves no seat for checker/same" in told


def test_a_card_is_shown_in_short_and_as_json_whole(call, adapters):
    card = adapters.get("assistant/same")
    adapters.update(replace(card, episodes=[f"e{number}" for number in range(300)], loss=[1.0, 0.5]))
    out = call("adapters", "show", "assistant/same")[1]
    assert "e5" in out
    assert "e6" not in out
    assert "300 in all, see --json" in out
    assert json.loads(out)["loss"] == [1.0, 0.5]
    assert len(json.loads(call("adapters", "show", "assistant/same", "--json")[1])["episodes"]) == 300


@pytest.mark.parametrize("words", ["history ../../x", "rollback ../x", "trial ../../x", "promote ../../x"])
def test_a_path_is_no_name_of_a_node(call, words):
    code, _, err = call("adapters", *words.split())
    assert code == 1
    assert "is no name for a node or adapter" in err or "no adapter '../../x'" in err
