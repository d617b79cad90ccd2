"""What many plays come to: tables, pairs and curves, counted by hand."""

import json
import sys
from dataclasses import replace

import pytest

from cmat_graph.envs import load_env
from cmat_graph.errors import ConfigurationError, LeakError, MissingExtraError, ModelNotFoundError
from cmat_graph.records import Records
from cmat_graph.society import Findings, Setup, SocietySettings, reproduce
from cmat_graph.society.results import flat
from cmat_graph.society.saving import save_findings
from cmat_graph.society.score import Score
from cmat_graph.society.team import Team
from cmat_graph.society.workshop import seed_of


@pytest.fixture
def setup(tmp_path):
    env = load_env("questions", size=16)
    return Setup(folder=tmp_path / "society", env=env, train=env.tasks("train"), test=env.tasks("test"))


def score(arm, right, *, seed=0, **told):
    correct = {f"q{i}": float(i < right) for i in range(4)}
    return Score(arm=arm, seed=seed, correct=correct, calls=9.0, tokens=500.0, **told)


def test_the_error_of_one_seed_is_that_of_a_share(setup):
    found = Findings(setup=setup, scores=[score("base", 3)])
    [row] = found.rows
    assert row.accuracy.mean == 0.75
    assert row.accuracy.stderr == pytest.approx((0.75 * 0.25 / 3) ** 0.5)  # n - 1, for four questions


def test_arms_are_paired_by_question_and_seed(setup):
    scores = [score("majority", 3), score("base", 1), score("majority", 2, seed=1), score("base", 2, seed=1)]
    [(better, worse, difference, p)] = Findings(setup=setup, scores=scores).gaps()
    assert (better, worse) == ("majority", "base")
    assert difference.mean == pytest.approx((0.5 + 0.0) / 2)
    assert 0 < p <= 1


def test_a_seed_that_one_arm_lacks_is_left_out_of_the_pair(setup):
    scores = [score("debate", 4), score("debate", 0, seed=1), score("majority", 2)]
    [(_, _, difference, _)] = Findings(setup=setup, scores=scores).gaps()
    assert difference.mean == 0.5


def test_only_the_first_iteration_stands_in_the_table_and_all_in_the_curve(setup):
    scores = [score("maft-1", 2, labels={"right": 0.5}), score("maft-2", 3, labels={"right": 0.75})]
    found = Findings(setup=setup, scores=scores)
    methods, curve = found.tables()
    assert [row[0] for row in methods.rows] == ["Multiagent FT"]
    assert [row[1:] for row in curve.rows] == [["50.0 ± 28.9 %", "50.0 %", "1"], ["75.0 ± 25.0 %", "75.0 %", "1"]]
    assert [row.iteration for row in found.curve("maft")] == [1, 2]


def test_what_training_cost_is_told_beside_the_accuracy(setup):
    spent = {"models": 6, "tokens": 120_000, "seconds": 61.4, "calls": 4500}
    found = Findings(setup=setup, scores=[score("maft-1", 2, trained=spent), score("base", 2)])
    rows = {row[0]: row for row in found.tables()[0].rows}
    assert rows["Multiagent FT"][4:7] == ["6", "120,000", "61"]
    assert rows["Base"][4:7] == ["0", "-", "-"]


def test_findings_are_saved_as_tables_plots_and_a_page(setup, tmp_path):
    pytest.importorskip("matplotlib")
    told = {"nll": {"value": 0.5}, "kl_critics": {"value": 0.1}}
    scores = [score(f"{arm}-{k}", 2 + (k > 1), diversity=told) for arm in ("maft", "single_ft") for k in (1, 2)]
    files = {file.name for file in save_findings(Findings(setup=setup, scores=scores), tmp_path / "out")}
    assert files == {
        "result.json", "table.md", "index.html", "methods.svg", "iterations.svg", "diversity-nll.svg",
        "diversity-kl-critics.svg",
    }  # fmt: skip
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [arm["accuracy"] for arm in saved["arms"]] == [0.5, 0.75, 0.5, 0.75]
    assert "Single-agent FT, iteration 2" in (tmp_path / "out" / "table.md").read_text()


def test_nested_numbers_are_laid_out():
    assert flat({"nll": {"mean": 1, "pairs": {"0-1": 2.5}}, "name": "x", "ok": True}) == {
        "nll.mean": 1.0,
        "nll.pairs.0-1": 2.5,
    }


def test_a_test_question_among_the_training_questions_is_refused(setup):
    with pytest.raises(LeakError, match="1 test questions are among the training"):
        Setup(folder=setup.folder, env=setup.env, train=setup.train, test=[*setup.test, setup.train[0]])


def test_settings_that_cannot_work_name_the_fix(setup):
    with pytest.raises(ConfigurationError, match="at least 1"):
        SocietySettings(agents=0)
    with pytest.raises(ConfigurationError, match="questions to train on"):
        Setup(folder=setup.folder, env=setup.env, train=[], test=setup.test)
    with pytest.raises(ConfigurationError, match=r"in 0\.\.100"):
        SocietySettings(temperature=float("nan"))
    with pytest.raises(ConfigurationError, match="at least one seed and one method; there are: samples"):
        reproduce(setup, methods=())
    with pytest.raises(ConfigurationError, match="no prompts 'poems'"):
        Setup(folder=setup.folder, env=setup.env, train=setup.train, test=setup.test, pack="poems")


@pytest.mark.parametrize(("agents", "rounds", "calls"), [(3, 2, 9), (3, 3, 15), (5, 2, 15), (1, 2, 2), (3, 1, 3)])
def test_a_debate_makes_as_many_calls_as_the_paper_counts(agents, rounds, calls):
    assert SocietySettings(agents=agents, rounds=rounds).calls == calls


@pytest.mark.parametrize(("agents", "rounds", "calls"), [(3, 2, 9), (5, 2, 15), (3, 3, 15)])
def test_the_vote_beside_a_debate_has_as_many_calls_as_that(agents, rounds, calls):
    assert SocietySettings(agents=agents, rounds=rounds).samples == calls
    assert SocietySettings(agents=agents, rounds=rounds, equal_calls=4).samples == 4
    assert replace(SocietySettings(), agents=agents, rounds=rounds).samples == calls


def test_questions_that_nothing_may_be_learned_from_are_no_training_questions(setup):
    odd = replace(setup.train[0], split="validation")
    with pytest.raises(ConfigurationError, match="split 'validation'"):
        Setup(folder=setup.folder, env=setup.env, train=[odd], test=setup.test)


def test_a_mistaken_base_takes_no_folder(setup):
    with pytest.raises(ModelNotFoundError, match="abacos"):
        reproduce(replace(setup, base="abacos"), methods=("samples",))
    assert not setup.folder.exists()


def test_another_setting_is_named_alone(setup):
    Records(setup.folder, kind="society", settings=setup.describe(), record=Score)
    warmer = replace(setup, settings=SocietySettings(temperature=1.5))
    with pytest.raises(ConfigurationError, match=r"\(society\.temperature: 1\.0, now 1\.5\)"):
        Records(setup.folder, kind="society", settings=warmer.describe(), record=Score)


@pytest.mark.parametrize("damage", [{"correct": None}, {"correct": {"q": "x"}}, {"correct": {}}, {"calls": "9"}])
def test_a_damaged_score_names_its_file(setup, damage):
    records = Records(setup.folder, kind="society", settings=setup.describe(), record=Score)
    told = {"arm": "base", "seed": 0, "correct": {"q": 1.0}, "calls": 1, "tokens": 2} | damage
    (setup.folder / "arms" / "base.seed-0.json").write_text(json.dumps(told))
    with pytest.raises(ConfigurationError, match=r"base\.seed-0\.json cannot be read: holds no scores"):
        records.read("base", 0)


def test_agents_that_had_nothing_to_learn_are_named(setup):
    told = {"generator-0": {"made": True}, "critic-1": {"made": False}}
    scores = [score("maft-1", 2, sets=told), score("single_ft-1", 2, sets={"none": "no debates"})]
    found = Findings(setup=setup, scores=scores)
    table = next(table for table in found.tables() if table.title == "nothing to learn")
    assert [row[-1] for row in table.rows] == ["critic-1", "all"]
    assert [arm["kept"] for arm in found.to_json()["arms"]] == [{"0": ["critic-1"]}, {"0": ["all"]}]


def test_tables_are_saved_without_plots(setup, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "cmat_graph.report.plots", raising=False)
    with pytest.raises(MissingExtraError):
        save_findings(Findings(setup=setup, scores=[score("base", 3)]), tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"result.json", "table.md"}


def test_who_learned_nothing_keeps_its_seat():
    team = Team.of_one(None, 2)
    assert team.seat({}).keys() == {}
    assert list(team.seats) == ["generator-0", "generator-1", "critic-0", "critic-1"]


def test_each_purpose_has_a_seed_of_its_own():
    assert len({seed_of(seed, *what) for seed in (0, 1) for what in (("label", 1), ("label", 2), ("test",))}) == 6


def test_everything_that_was_recorded_is_found_again(tmp_path):
    records = Records(tmp_path, kind="society", settings={}, record=Score)
    kept = [records.write(each) for each in (score("base", 1, seed=1), score("maft-2", 3), score("base", 2))]
    assert records.all() == [kept[2], kept[1], kept[0]]
    assert records.read("maft-1", 0) is None
