"""`evaluate` and `traces show` say why episodes failed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cmat_graph.cli import main
from cmat_graph.testing import ScriptedChatModel


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder, with an assistant that only says OK; give exit code and standard output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmat_graph.models.load_model", lambda *_, **__: ScriptedChatModel(replies=["OK"]))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cmat-graph", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    return run


def test_evaluate_counts_why_episodes_failed(call):
    code, out = call("evaluate", "--split", "all", "--limit", 1, "--attempts", 1, "--json")
    arms = json.loads(out)["arms"]
    assert code == 0
    assert [arm["failures"]["ok_only"] for arm in arms] == [1, 1]
    assert json.loads(Path("evaluation.json").read_text())["arms"] == arms


def test_evaluate_shows_tags_by_arm(call):
    _, out = call("evaluate", "--split", "all", "--limit", 1, "--attempts", 1)
    assert "failed episodes by tag" in out
    (row,) = (line for line in out.splitlines() if "ok_only" in line)
    assert [cell.strip() for cell in row.split("│")[1:4]] == ["ok_only", "1", "1"]


def test_a_shown_episode_is_headed_by_its_tags(call):
    call("evaluate", "--split", "all", "--limit", 1, "--attempts", 1, "--traces", "sqlite:///t.db")
    first = call("traces", "show", "--traces", "sqlite:///t.db", "--run", "base", "--limit", 1)[1].splitlines()[0]
    assert "reward 0" in first
    assert "ok_only" in first
