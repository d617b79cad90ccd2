"""`cmat-graph experiment` on the bundled model: trained, measured, shown, and not done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cmat_graph import AdapterRegistry
from cmat_graph.cli import experiment
from cmat_graph.experiments.mix import ETA

SMALL = ["--size", 32, "--limit", 2, "--max-steps", 2, "--batch-size", 4, "--attempts", 2, "--out", "x"]


def test_help_tells_the_share_that_is_taken():
    assert experiment._ETA == ETA


@pytest.mark.slow
def test_the_loop_is_measured_once_whatever_is_asked_again(call):
    code, out, err = call("experiment", "loop", *SMALL, "--json")
    result = json.loads(out)
    assert code == 0
    assert [arm["name"] for arm in result["arms"]] == ["base", "base+loop", "tuned", "tuned+loop"]
    assert {arm["n"] for arm in result["arms"]} == {2}
    assert [each["better"] for each in result["differences"]] == ["tuned", "tuned+loop", "tuned+loop", "base+loop"]
    assert "plot.svg" in err
    card = AdapterRegistry("x/adapters").get("assistant/seed-0")
    assert result["arms"][2]["adapters"] == [card.key]
    assert (card.settings["max_steps"], card.harvest["run"]) == (2, "teacher")

    code, out, _ = call("experiment", "loop", *SMALL, "--seeds", 2, "--json")
    again = json.loads(out)
    assert [arm["seeds"] for arm in again["arms"]] == [1, 1, 2, 2]
    assert again["arms"][:2] == result["arms"][:2]  # to the tenth of a second: it was not played again
    assert again["arms"][2]["adapters"][0] == card.key

    made_before = ["--adapter", "seed-0", "--adapters", "x/adapters", "--out", "y"]
    code, out, _ = call("experiment", "loop", *SMALL[:-2], *made_before)
    assert code == 0
    assert "tuned+loop" in out
    assert not Path("y/adapters").exists()


@pytest.mark.slow
def test_parts_of_the_loop_are_measured(call):
    words = ["--size", 32, "--limit", 1, "--attempts", 1, "--practice", 1, "--out", "x"]
    code, out, _ = call("experiment", "parts", *words)
    assert code == 0
    assert all(arm in out for arm in ("all parts", "no checker", "no reflection", "no memory", "no part"))
    assert {path.name for path in Path("x").iterdir()} >= {"result.json", "table.md", "plot.png", "index.html"}


@pytest.mark.slow
def test_a_killed_experiment_goes_on_where_it_was(call, tmp_path):
    words = [sys.executable, "-m", "cmat_graph.cli", "experiment", "loop", *map(str, SMALL)]
    running = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = tmp_path / "x" / "arms" / "base.seed-0.json"
    for _ in range(1200):
        if first.is_file() or running.poll() is not None:
            break
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    kept, trained = first.read_bytes(), (tmp_path / "x/adapters/assistant/seed-0/card.json").read_bytes()
    assert not (tmp_path / "x" / "result.json").exists()
    code, _, _ = call("experiment", "loop", *SMALL)
    assert code == 0
    assert (first.read_bytes(), (tmp_path / "x/adapters/assistant/seed-0/card.json").read_bytes()) == (kept, trained)


def test_an_experiment_says_what_is_wrong_before_it_begins(call):
    code, _, err = call("experiment", "loop", "--out", "x", "--size", 32, "--adapter", "none", "--adapters", "a")
    assert code == 1
    assert "no adapter 'none'" in err
    code, _, err = call("experiment", "mix", "--out", "x", "--size", 32, "--eta", 1)
    assert code == 1
    assert "--eta" in err
    code, _, err = call("experiment", "loop", "--out", "x", "--size", 32, "--train-split", "test")
    assert code == 1
    assert "nothing is learned from that split" in err
    assert not Path("x").exists()
