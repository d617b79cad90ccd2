"""A whole society at its smallest: two agents, a few questions, the bundled base."""

import json
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from cmat_graph.cli import cli
from cmat_graph.errors import ConfigurationError
from cmat_graph.society import reproduce
from cmat_graph.society.loading import open_society
from cmat_graph.traces.sql import SQLTraceStore
from tests import settler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("society") / "s"
    return folder, settler.settle(folder)


def test_the_second_iteration_begins_from_the_first(whole):
    folder, _ = whole
    society = open_society(folder)
    assert society.iteration == 2
    for node, card in society.team.seats.items():
        assert card is None or card.node == node
        if card is not None and card.name.startswith("maft-2"):
            assert card.init.startswith(f"{node}/maft-1-seed-0@")


def test_training_questions_are_labelled_anew_in_each_iteration(whole):
    folder, _ = whole
    with SQLTraceStore(f"sqlite:///{folder / 'traces.db'}") as traces:
        runs = {run["run"]: run["episodes"] for run in traces.runs()}
    assert runs == {"seed-0/untuned": settler.TRAIN, "seed-0/maft-2": settler.TRAIN}


def test_no_test_question_is_in_any_training_set(whole):
    folder, _ = whole
    tested = {task.prompt for task in settler.setup(folder).test}
    rows = [json.loads(line) for file in folder.glob("data/**/sft.*.jsonl") for line in file.open()]
    assert rows
    assert not [row for row in rows if any(question in str(row["messages"]) for question in tested)]


def test_what_is_recorded_is_not_done_again(whole):
    folder, found = whole
    before = {file: file.stat().st_mtime_ns for file in folder.glob("adapters/**/*.safetensors")}
    start = time.monotonic()
    again = settler.settle(folder)
    assert time.monotonic() - start < 10
    assert again.to_json() == found.to_json()
    assert {file: file.stat().st_mtime_ns for file in folder.glob("adapters/**/*.safetensors")} == before


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("Debate: seed-0/untuned", 12),
        ("Train: critic-0/maft-1", 2),
        ("Train: generator-1/maft-2", 4),
        ("Debate: seed-0/maft-2", 12),
    ],
)
def test_killed_anywhere_the_same_call_goes_on(whole, tmp_path, stage, number):
    _, found = whole
    folder = tmp_path / "s"
    command = [sys.executable, "-m", "tests.settler", str(folder), stage, str(number)]
    died = subprocess.run(command, cwd=settler.ROOT, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    again = settler.settle(folder)
    for one, other in zip(found.scores, again.scores, strict=True):
        assert (one.arm, one.correct, one.sets) == (other.arm, other.correct, other.sets)


def test_another_society_in_the_same_folder_is_refused(whole):
    folder, _ = whole
    with pytest.raises(ConfigurationError, match="other settings"):
        reproduce(settler.setup(folder, temperature=0.5), methods=("samples",))


def test_every_method_plays(tmp_path):
    found = reproduce(settler.setup(tmp_path / "s", iterations=1), seeds=1)
    arms = {row.arm for row in found.rows}
    assert {"base", "majority", "vote", "debate", "star", "majority_ft", "maft-1", "single_ft-1"} <= arms
    assert {"no_summary-1", "no_critic-1", "cooperate", "cooperate_ft-1", "unique_id", "hot-1"} <= arms
    assert {"union-1", "student", "single_ft_alone-1"} <= arms
    calls = {row.arm: row.calls for row in found.rows}
    assert (calls["base"], calls["majority"], calls["debate"], calls["student"]) == (1, 2, 6, 1)
    assert calls["no_summary-1"] == 4


def test_a_society_is_measured_on_other_questions(whole):
    folder, _ = whole
    options = ["society", "evaluate", str(folder), "--size", "12", "--seed", "99", "--test", "4", "--json"]
    result = CliRunner().invoke(cli, options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["questions"], told["iteration"]) == (4, 2)
    assert set(told["arms"]) == {"base", "vote", "debate", "society"}
    assert told["arms"]["vote"]["calls"] == told["arms"]["debate"]["calls"] == 6
