"""A whole society at its smallest: two agents, a few questions, the bundled base."""

import json
import shutil
import signal
from contextlib import closing
from dataclasses import replace

import forked
import pytest
import settler
from click.testing import CliRunner

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.cli import cli
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError, LeakError
from cmat_graph.society import reproduce
from cmat_graph.society.loading import open_society
from cmat_graph.society.team import Team
from cmat_graph.society.workshop import Workshop
from cmat_graph.traces.sql import SQLTraceStore
from cmat_graph.tuning.distill import tasks_of

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
    with closing(SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")) as traces:
        runs = {run["run"]: run["episodes"] for run in traces.runs()}
    assert runs == {"seed-0/untuned": settler.TRAIN, "seed-0/maft-2": settler.TRAIN}


def test_no_test_question_is_in_any_training_set(whole):
    folder, _ = whole
    tested = {task.prompt for task in settler.setup(folder).test}
    rows = [json.loads(line) for file in folder.glob("data/**/sft.*.jsonl") for line in file.open()]
    assert rows
    assert not [row for row in rows if any(question in str(row["messages"]) for question in tested)]


def everything(folder):
    for name in ("traces", "heldout"):
        with closing(SQLTraceStore(f"sqlite:///{folder / name}.db")) as traces:
            yield from traces.episodes()


def test_what_is_recorded_is_not_done_again(whole):
    folder, found = whole
    before = {file: file.stat().st_mtime_ns for file in folder.glob("adapters/**/*.safetensors")}
    said = sum(len(episode.steps) for episode in everything(folder))
    again = settler.settle(folder)
    assert sum(len(episode.steps) for episode in everything(folder)) == said
    assert again.to_json() == found.to_json()
    assert {file: file.stat().st_mtime_ns for file in folder.glob("adapters/**/*.safetensors")} == before


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("Label: seed-0/untuned", 12),
        ("Train: critic-0/maft-1", 2),
        ("Train: generator-1/maft-2", 4),
        ("Label: seed-0/maft-2", 12),
        ("Test: seed-0/maft-2", 4),
    ],
)
def test_killed_anywhere_the_same_call_goes_on(whole, tmp_path, stage, number):
    _, found = whole
    folder = tmp_path / "s"
    died = forked.run(settler.settle, folder, stage, number)
    assert died.returncode == -signal.SIGKILL, died.stderr
    again = settler.settle(folder)
    for one, other in zip(found.scores, again.scores, strict=True):
        assert (one.arm, one.correct, one.sets) == (other.arm, other.correct, other.sets)


def test_another_society_in_the_same_folder_is_refused(whole):
    folder, _ = whole
    with pytest.raises(ConfigurationError, match="other settings"):
        reproduce(settler.setup(folder, temperature=0.5), methods=("samples",))


def test_an_iteration_that_was_stopped_is_not_the_last_one(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "s")
    (folder / "arms" / "maft-2.seed-0.json").unlink()  # its adapters may be there, and some of them may not
    assert open_society(folder).iteration == 1
    with pytest.raises(ConfigurationError, match="no finished iteration 2 of seed 0; finished: 1"):
        open_society(folder, iteration=2)


def test_an_adapter_that_is_gone_is_missed(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "s")
    gone = next((folder / "adapters").glob("*/maft-1-seed-0"))
    shutil.rmtree(gone)
    with pytest.raises(AdapterNotFoundError, match=rf"{gone.parent.name}/maft-1-seed-0@\w+ is no longer in"):
        settler.settle(folder)


def test_a_society_is_not_measured_on_what_it_learned(whole):
    told = ["society", "evaluate", str(whole[0]), "--size", str(settler.TRAIN + settler.TEST), "--seed", "3"]
    result = CliRunner().invoke(cli, [*told, "--test-split", "train"])
    assert isinstance(result.exception, LeakError)
    tasks = ["--tasks", "builtin", "--size", str(settler.TRAIN + settler.TEST), "--task-seed", "3", "--split", "train"]
    asked = CliRunner().invoke(cli, ["debate", *tasks, "--society", str(whole[0])])
    assert isinstance(asked.exception, LeakError)
    made = next((whole[0] / "adapters").glob("generator-*/maft-1-seed-0"))
    named = ["--adapters", str(whole[0] / "adapters"), "--generator", f"{made.parent.name}/{made.name}"]
    asked = CliRunner().invoke(cli, ["debate", *tasks, *named])
    assert isinstance(asked.exception, LeakError)


def test_an_adapter_answers_for_all_that_its_forebears_learned(whole):
    registry = AdapterRegistry(whole[0] / "adapters")
    heirs = [card for card in registry.list() if card.name.startswith("maft-2") and card.init]
    assert heirs
    for card in heirs:
        assert tasks_of(card) >= tasks_of(registry.get(card.init.partition("@")[0]))


def test_agents_whose_rows_are_all_too_long_stay_as_they_were(tmp_path):
    usual = settler.setup(tmp_path / "s", iterations=1)
    tight = replace(usual.settings.generator, max_length=8)
    setup = replace(usual, settings=replace(usual.settings, generator=tight, critic=tight))
    for _ in range(2):
        found = reproduce(setup, methods=("maft", "majority_ft"))
        scores = {score.arm: score for row in found.rows for score in row.scores}
        assert scores["maft-1"].adapters == {}
        assert scores["maft-1"].kept
        assert scores["majority_ft"].kept == ["all"]
    assert not AdapterRegistry(setup.folder / "adapters").list()


def test_a_society_that_could_not_be_opened_can_be_opened_next(whole):
    with pytest.raises(ConfigurationError) as caught:
        Workshop(settler.setup(whole[0], agents=3))
    with Workshop(settler.setup(whole[0])) as workshop:
        assert workshop.registry.list()
    assert caught.tb is not None  # which holds what was opened


@pytest.mark.parametrize("word", [("--base", "nano"), ("--agents", "7"), ("--generator", "generator-0/x")])
def test_a_society_is_asked_as_a_whole_or_not_at_all(whole, word):
    result = CliRunner().invoke(cli, ["debate", "What is 1+1?", "--society", str(whole[0]), *word])
    assert isinstance(result.exception, ConfigurationError)
    assert "leave out --base" in str(result.exception)


def test_a_society_is_asked_as_it_was_trained(whole, tmp_path):
    url = f"sqlite:///{tmp_path / 't.db'}"
    result = CliRunner().invoke(cli, ["debate", "What is 1+1?", "--society", str(whole[0]), "--traces", url])
    assert result.exit_code == 0, result.output
    with closing(SQLTraceStore(url)) as traces:
        [episode] = traces.episodes()
    models = episode.settings["debate"]["models"]
    assert {model.rpartition(" ")[2] for model in models.values()} == {
        f"n={settler.setup(whole[0]).settings.max_tokens}"
    }


def test_agents_that_are_no_lora_are_tested_all_the_same(whole):
    card = next(card for card in open_society(whole[0]).team.seats.values() if card is not None)
    team = Team.of_one(replace(card, method="p-tuning"), 2)
    with Workshop(settler.setup(whole[0])) as workshop:
        assert "p-tuning" in workshop.diversity("seed-0/maft-1", team, seed=0)["none"]


def test_a_seed_may_be_of_any_size(whole, tmp_path):
    data = next(file.parent for file in whole[0].glob("data/seed-0/maft-1/*/sft.train.jsonl"))
    setup = settler.setup(tmp_path / "s")
    with Workshop(setup) as workshop:
        card = workshop.train("generator", "late", data, settings=setup.settings.generator, seed=2**32 + 5)
    assert card.examples > 0


def test_every_method_plays_once(tmp_path):
    found = reproduce(settler.setup(tmp_path / "s", iterations=1), seeds=1)
    again = reproduce(settler.setup(tmp_path / "s", iterations=1), seeds=1)
    assert again.to_json() == found.to_json()
    registry = AdapterRegistry(tmp_path / "s" / "adapters")
    made = {
        arm: sum(card.seconds for card in registry.list() if card.name in (f"{arm}-seed-0", f"{arm}-1-seed-0"))
        for arm in ("maft", "single_ft", "union", "student")
    }
    spent = {s.arm.removesuffix("-1"): s.trained["seconds"] for s in found.scores if s.trained}
    debates = [spent[arm] - made[arm] for arm in made]  # all learned from the same ones
    assert max(debates) - min(debates) < 0.5
    assert set(next(s.sets for s in found.scores if s.arm == "no_critic-1")) == {"generator-0", "generator-1"}
    arms = {row.arm for row in found.rows}
    assert {"base", "majority", "vote", "debate", "star", "majority_ft", "maft-1", "single_ft-1"} <= arms
    assert {"no_summary-1", "no_critic-1", "cooperate", "cooperate_ft-1", "unique_id", "hot-1"} <= arms
    assert {"union-1", "student", "single_ft_alone-1", "share-1", "dpo-1", "vote_plain"} <= arms
    rows = {
        score.arm: score.sets["generator"]["sft.train"]
        for score in found.scores
        if score.arm in ("share-1", "single_ft-1")
    }
    assert rows["share-1"] < rows["single_ft-1"]
    calls = {row.arm: row.calls for row in found.rows}
    assert (calls["base"], calls["majority"], calls["debate"], calls["student"]) == (1, 2, 6, 1)
    assert calls["no_summary-1"] == calls["vote_plain"] == 4


def test_a_society_is_measured_on_other_questions(whole):
    folder, _ = whole
    options = ["society", "evaluate", str(folder), "--size", "12", "--seed", "99", "--test", "4", "--json"]
    result = CliRunner().invoke(cli, options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["questions"], told["iteration"]) == (4, 2)
    assert set(told["arms"]) == {"base", "vote", "debate", "society"}
    assert told["arms"]["vote"]["calls"] == told["arms"]["debate"]["calls"] == 6
