"""Rounds of self-improvement over the real engine and the real trainer, killed for real in every stage."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import forked
import improver
import pytest

from cmat_graph import AdapterCard, AdapterRegistry
from cmat_graph.errors import AdapterMismatchError, ConfigurationError
from cmat_graph.improve import ImproveSettings, improve
from cmat_graph.improve.rounds import _Rounds
from cmat_graph.improve.state import State
from cmat_graph.splits import is_validation
from cmat_graph.traces import SQLTraceStore
from cmat_graph.tuning import Dataset, TrainSettings
from cmat_graph.tuning.distill import tasks_of

HELD = {task.id for task in improver.ENV.tasks("train") if is_validation(task.id, 0.4)}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rounds": 0}, "at least 1"),
        ({"nodes": ("user",)}, "no node 'user'"),
        ({"nodes": ()}, "no node ''"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"alpha": 0.0}, "between 0 and 1"),
        ({"train": TrainSettings(objective="dpo")}, "--start previous"),
    ],
)
def test_settings_that_cannot_work_name_the_fix(wrong, says):
    with pytest.raises(ConfigurationError, match=says):
        ImproveSettings(**wrong)


def test_without_tasks_for_the_gate_nothing_begins(tmp_path):
    settings = replace(improver.SETTINGS, harvest=replace(improver.SETTINGS.harvest, validation_share=0.0))
    with pytest.raises(ConfigurationError, match="0 for the gate"):
        improve(tmp_path, env=improver.ENV, settings=settings)
    assert not list(tmp_path.iterdir())


def test_what_it_cannot_go_on_from_is_said_before_anything_is_played(tmp_path):
    registry = AdapterRegistry(tmp_path / "adapters")
    card = AdapterCard(name="one", node="assistant", base="org/other", base_hash="0" * 64)
    registry.promote(registry.add(card, lambda folder: card))
    settings = replace(improver.SETTINGS, start="previous")
    with pytest.raises(AdapterMismatchError, match="assistant/one was trained on org/other, not on nano"):
        improve(tmp_path / "improved", env=improver.ENV, settings=settings, registry=registry)
    assert not (tmp_path / "improved").exists()


# -- one improvement, whole --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("improved")
    done = forked.run(improver.tell, folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.slow
def test_each_round_plays_learns_is_judged_and_the_better_one_is_promoted(whole):
    folder, improved = whole
    assert [notes["round"] for notes in improved["rounds"]] == [1, 2]
    first = improved["rounds"][0]
    assert first["collect"]["tasks"] == first["collect"]["solved"] + first["collect"]["taught"]
    registry = AdapterRegistry(folder / "adapters")
    trained = [told["nodes"]["assistant"]["adapter"] for told in improved["rounds"]]
    assert [card.name for card in registry.list()] == [name for name in trained if name]
    assert trained[0] == "round-1"
    promoted = [f"round-{n['round']}" for n in improved["rounds"] if n["nodes"]["assistant"]["promoted"]]
    assert promoted
    assert [change.name for change in registry.history("assistant")] == promoted
    assert improved["teams"][-1] == {"assistant": promoted[-1]}
    assert [point["round"] for point in improved["curve"]] == [0, 1, 2]
    assert improved["curve"][0]["gain"] == 0.0


@pytest.mark.slow
def test_the_loss_on_the_gates_tasks_is_followed_and_they_teach_nobody(whole):
    folder, _ = whole
    cards = AdapterRegistry(folder / "adapters").list()
    assert cards
    for card in cards:
        rows = list(Dataset(Path(card.folder, "dataset")).examples("validation"))
        assert len(card.validation_loss) > 0
        assert {row.origin.task_id for row in rows} <= HELD


@pytest.mark.slow
def test_the_tasks_of_the_gate_and_of_the_curve_teach_nobody(whole):
    folder, _ = whole
    played = {e.task.id for e in SQLTraceStore(f"sqlite:///{folder / 'traces.db'}").episodes()}
    assert played
    assert not played & HELD
    test = {task.id for task in improver.ENV.tasks("test")}
    for card in AdapterRegistry(folder / "adapters").list():
        assert tasks_of(card) & played
        assert not tasks_of(card) & (HELD | test)


@pytest.mark.slow
def test_a_team_that_did_not_change_is_not_played_again(whole):
    folder, improved = whole
    runs = Counter(e.run for e in SQLTraceStore(f"sqlite:///{folder / 'heldout.db'}").episodes())
    teams = {point["team"] for point in improved["curve"]}
    assert all(runs[team] == 3 + len(HELD) for team in teams)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("round 1: play 1", 5),
        ("round 1: train", 6),
        ("round 1: the gate's tasks", 3),
        ("round 1: gate", 4),
        ("promote", 0),
        ("round 2: play", 3),
        ("test", 2),
    ],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_killed_anywhere_the_same_call_goes_on(whole, tmp_path, stage, number):
    folder, expected = whole
    died = forked.run(improver.tell, tmp_path, stage, number)
    assert died.returncode == -signal.SIGKILL, died.stderr
    done = forked.run(improver.tell, tmp_path)
    assert done.returncode == 0, done.stderr
    improved = json.loads(done.stdout)
    assert improved["teams"] == expected["teams"]
    assert improved["curve"] == _with_teams_of(improved, expected["curve"])
    assert [n["collect"] for n in improved["rounds"]] == [n["collect"] for n in expected["rounds"]]
    history = [AdapterRegistry(each / "adapters").history("assistant") for each in (tmp_path, folder)]
    assert [change.name for change in history[0]] == [change.name for change in history[1]]
    ended = Counter(
        (e.run, e.task.id)
        for e in SQLTraceStore(f"sqlite:///{tmp_path / 'traces.db'}").episodes()
        if e.reward is not None
    )
    assert set(ended.values()) == {1}
    assert [path.name for path in (tmp_path / "adapters" / "assistant").glob(".*")] == []


def _with_teams_of(improved, curve):
    """Weights that were trained in two goes may have another hash, and so another label."""
    return [point | {"team": mine["team"]} for point, mine in zip(curve, improved["curve"], strict=True)]


@pytest.mark.slow
def test_more_rounds_go_on_where_it_stopped_and_other_settings_are_refused(whole, tmp_path):
    folder, improved = whole
    shutil.copytree(folder, tmp_path / "copy")
    before = SQLTraceStore(f"sqlite:///{tmp_path}/copy/traces.db").runs()
    again = improver.run(tmp_path / "copy")
    assert again.to_json() == improved
    assert SQLTraceStore(f"sqlite:///{tmp_path}/copy/traces.db").runs() == before
    with pytest.raises(ConfigurationError, match="with another teacher, samples"):
        improve(
            tmp_path / "copy", env=improver.ENV, settings=replace(improver.SETTINGS, samples=2), test=[], teacher=None
        )


def test_two_processes_do_not_improve_in_one_place(tmp_path):
    state = State(tmp_path, {"base": "nano"})
    with pytest.raises(ConfigurationError, match="another process improves"):
        State(tmp_path, {"base": "nano"})
    state.close()
    State(tmp_path, {"base": "nano"}).close()


@pytest.mark.slow
def test_the_same_successes_again_are_not_trained_on_again(tmp_path):
    settings = replace(improver.SETTINGS, alpha=0.001, train=TrainSettings(max_steps=1, batch_size=4))
    improved = improve(tmp_path, env=improver.ENV, settings=settings)
    first, second = (notes["nodes"]["assistant"] for notes in improved.rounds)
    assert first["verdict"].startswith("kept: not better")
    assert second["verdict"] == "not trained: nothing new to learn from since assistant/round-1"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["adapters"]


@pytest.mark.slow
def test_the_checker_is_trained_and_judged_in_its_own_seat(tmp_path):
    settings = replace(improver.SETTINGS, rounds=1, nodes=("checker",), train=TrainSettings(max_steps=2, batch_size=4))
    improved = improve(tmp_path, env=improver.ENV, settings=settings)
    told = improved.rounds[0]["nodes"]["checker"]
    assert told["verdict"].startswith(("promoted: ", "kept: not better"))
    card = AdapterRegistry(tmp_path / "adapters").get("checker/round-1")
    assert card.node == card.harvest["node"] == "checker"
    judged = list(SQLTraceStore(f"sqlite:///{tmp_path / 'traces.db'}").episodes(run="round-1/judged"))
    assert {step.node for episode in judged for step in episode.steps} == {"assistant", "checker"}


def test_a_broken_state_is_named(tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"state\.json cannot be read"):
        improver.run(tmp_path)


def test_a_round_takes_the_episodes_of_its_rounds_alone(tmp_path, env, traces):
    from cmat_graph import create_cmat_graph, run_episodes
    from cmat_graph.models import ExpertChatModel

    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    for run in ("round-1/sample-0", "round-10/sample-0", "round-2/teacher"):
        run_episodes(graph, env.tasks("train")[:2], env=env, traces=traces, run=run)
    assert [e.run for e in _Rounds(traces, range(1, 2)).episodes(split="train")] == ["round-1/sample-0"] * 2
    both = [e.run for e in _Rounds(traces, range(1, 3)).episodes()]
    assert both == ["round-1/sample-0"] * 2 + ["round-2/teacher"] * 2
    assert Path(tmp_path).is_dir()
