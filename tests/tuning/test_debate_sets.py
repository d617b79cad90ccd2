"""From recorded debates to one dataset an agent, each set counted by hand (Multiagent Finetuning, section 2.3)."""

from __future__ import annotations

import random

import pytest
from debate_recordings import ASK, record, say
from hypothesis import given, settings
from hypothesis import strategies as st

from cmat_graph.errors import ConfigurationError, DatasetError, EmptyHarvestError, LeakError
from cmat_graph.traces import SQLTraceStore
from cmat_graph.tuning.dataset import Dataset, hash_task
from cmat_graph.tuning.debates import DebateSets, DebateSetSettings, debate_sets
from cmat_graph.tuning.debates.mixing import mix
from cmat_graph.types import Task

ALL = DebateSetSettings(w=0.5)


@pytest.fixture
def debated(traces):
    """Four questions of three agents; what each agent gives and what the vote says:

    question   round 1      round 2      consensus
    1+1        2  2  3      2  2  2      2          agent 2 repairs itself
    2+2        4  5  -      4  4  4      4          agents 1 and 2 repair themselves
    3+3        7  6  6      6  6  7      6          agent 0 repairs itself, agent 2 spoils its answer
    4+4        9  8  9      9  9  9      9          wrong, but the label; agent 1 comes over to it
    """
    record(traces, "1+1", ["2", "2", "3"], ["2", "2", "2"], consensus="2")
    record(traces, "2+2", ["4", "5", None], ["4", "4.0", "4"], consensus="4")
    record(traces, "3+3", ["7", "6", "6"], ["6", "6", "7"], consensus="6")
    record(traces, "4+4", ["9", "8", "9"], ["9", "9", "9"], consensus="9")
    return traces


def taught(dataset):
    """Return what is learned, by question."""
    return sorted(
        (row.origin.task_id.removeprefix("id of "), row.messages[-1]["content"]) for row in dataset.examples()
    )


def questions(dataset, kind=None):
    rows = [row for row in dataset.examples() if kind is None or row.kind == kind]
    return sorted(row.origin.task_id.removeprefix("id of ") for row in rows)


def test_generators_learn_their_own_first_answers_that_hit_the_consensus(debated, tmp_path):
    sets = debate_sets(debated, tmp_path / "sets", run="label", settings=ALL, validation_share=0)
    assert taught(sets["generator-0"]) == [("1+1", say(0, "2")), ("2+2", say(0, "4")), ("4+4", say(0, "9"))]
    assert taught(sets["generator-1"]) == [("1+1", say(1, "2")), ("3+3", say(1, "6"))]
    assert taught(sets["generator-2"]) == [("3+3", say(2, "6")), ("4+4", say(2, "9"))]
    (row, *_) = sets["generator-1"].examples()
    assert row.messages[0]["content"] in (ASK.format(question="1+1"), ASK.format(question="3+3"))


def test_critics_learn_where_they_repaired_themselves_and_where_they_stayed_right(debated, tmp_path):
    fraction = DebateSetSettings(mixing="authors")  # takes every C-
    sets = debate_sets(debated, tmp_path / "sets", run="label", settings=fraction, validation_share=0)
    assert questions(sets["critic-0"], "repair") == ["3+3"]
    assert questions(sets["critic-1"], "repair") == ["2+2", "4+4"]
    assert questions(sets["critic-2"], "repair") == ["1+1", "2+2"]
    found = {node: about["found"] for node, about in sets.report["agents"].items()}
    assert found["critic-0"] == {"C-": 1, "C+": 3}
    assert found["critic-1"] == {"C-": 2, "C+": 2}
    assert found["critic-2"] == {"C-": 2, "C+": 1}
    assert found["generator-0"] == {"G": 3}


def test_a_trajectory_whose_last_answer_misses_the_consensus_is_never_used(debated, tmp_path):
    for mixing in ("proportion", "fraction", "authors"):
        rules = DebateSetSettings(mixing=mixing, w=0.3)
        sets = debate_sets(debated, tmp_path / mixing, run="label", settings=rules, validation_share=0)
        assert "3+3" not in questions(sets["critic-2"])


def test_a_critic_row_is_the_chat_as_it_was_shown(debated, tmp_path):
    sets = debate_sets(debated, tmp_path / "sets", run="label", settings=ALL, validation_share=0)
    row = next(row for row in sets["critic-1"].examples() if row.origin.task_id == "id of 2+2")
    assert [(m["role"], m["content"]) for m in row.messages] == [
        ("user", ASK.format(question="2+2")),
        ("assistant", say(1, "5")),
        ("user", "Others: agent 0 says 4; agent 2 says None\nSolve again: 2+2"),
        ("assistant", say(1, "4.0", 2)),
    ]
    assert [m.get("weight", 0.0) for m in row.messages] == [0.0, 0.0, 0.0, 1.0]
    assert row.origin.task_hash == hash_task("2+2")
    assert row.origin.node == "critic-1"


def test_all_turns_learns_the_wrong_first_answer_too_as_the_authors_code_does(debated, tmp_path):
    rules = DebateSetSettings(loss="all_turns", mixing="authors")
    sets = debate_sets(debated, tmp_path / "sets", run="label", settings=rules, validation_share=0)
    row = next(row for row in sets["critic-0"].examples() if row.kind == "repair")
    assert [m.get("weight", 0.0) for m in row.messages] == [0.0, 1.0, 0.0, 1.0]


answers = st.sampled_from(["1", "2", "3", None])


@pytest.fixture(scope="module")
def store():
    return SQLTraceStore("sqlite://")


@settings(max_examples=25)
@given(
    debates=st.lists(
        st.tuples(st.lists(answers, min_size=3, max_size=3), st.lists(answers, min_size=3, max_size=3), answers),
        min_size=1,
        max_size=8,
    ),
    mixing=st.sampled_from(["proportion", "fraction", "authors"]),
    w=st.floats(0, 1),
)
def test_no_row_of_an_agent_is_in_the_set_of_another_whatever_was_said(store, tmp_path_factory, debates, mixing, w):
    folder = tmp_path_factory.mktemp("sets")
    for number, (first, last, label) in enumerate(debates):
        record(store, f"question {number}", first, last, consensus=label or "", run=folder.name)
    rules = DebateSetSettings(mixing=mixing, w=w)
    try:
        sets = debate_sets(store, folder / "sets", run=folder.name, settings=rules, validation_share=0)
    except EmptyHarvestError:
        hit = [
            agent
            for first, last, label in debates
            if label
            for agent in range(3)
            if first[agent] == label or last[agent] == label
        ]
        assert not hit
        return
    for node, dataset in sets.items():
        role, agent = node.split("-")
        for row in dataset.examples():
            number = int(row.origin.task_id.rsplit(" ", 1)[1])
            first, last, label = debates[number]
            mine = [message for message in row.messages if message["role"] == "assistant"]
            assert all(message["content"].startswith(f"Agent {'ABC'[int(agent)]}") for message in mine)
            assert label is not None
            if role == "generator":
                assert first[int(agent)] == label
                assert len(mine) == 1
            else:
                assert last[int(agent)] == label
                assert (first[int(agent)] != label) == (row.kind == "repair")


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1) | st.sampled_from([0, 1, 0.1, 0.29, 0.3, 0.5, 0.7]))
def test_the_mix_is_w_within_one_row_and_as_large_as_can_be(minus, plus, w):
    drawn = mix(range(minus), range(100, 100 + plus), DebateSetSettings(w=w), random.Random(0))
    size = len(drawn.minus) + len(drawn.plus)
    assert set(drawn.minus) <= set(range(minus))
    assert set(drawn.plus) <= set(range(100, 100 + plus))
    assert (len(set(drawn.minus)), len(set(drawn.plus))) == (len(drawn.minus), len(drawn.plus))
    if minus and plus:
        assert drawn.fallback == ""
        assert abs(len(drawn.minus) - w * size) <= 1
        assert size + 1 > min(minus / w if w else plus, plus / (1 - w) if w < 1 else minus)
    else:
        assert size == minus + plus
        assert drawn.fallback == ("C+" if plus and w > 0 else "C-" if minus and w < 1 else "")


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_fractions_of_both_sides_are_taken(minus, plus, w):
    drawn = mix(range(minus), range(plus), DebateSetSettings(mixing="fraction", w=w), random.Random(0))
    assert abs(len(drawn.minus) - w * minus) <= 0.5 + 1e-9
    assert abs(len(drawn.plus) - (1 - w) * plus) <= 0.5 + 1e-9
    assert drawn.minus or drawn.plus


def test_the_authors_mix_keeps_every_repair_and_adds_one_for_every_second():
    sizes = [
        len(mix(range(100), range(200), DebateSetSettings(mixing="authors"), random.Random(seed)).plus)
        for seed in range(200)
    ]
    assert 48 < sum(sizes) / len(sizes) < 52
    drawn = mix(range(100), range(3), DebateSetSettings(mixing="authors"), random.Random(0))
    assert (len(drawn.minus), len(drawn.plus)) == (100, 3)


def test_a_critic_that_never_repairs_learns_from_where_it_stayed_right(traces, tmp_path):
    record(traces, "1+1", ["2", "2"], ["2", "2"], consensus="2")
    for mixing in ("proportion", "authors"):
        sets = debate_sets(
            traces, tmp_path / mixing, settings=DebateSetSettings(mixing=mixing, w=1.0), validation_share=0
        )
        about = sets.report["agents"]["critic-0"]
        assert (about["fallback"], about["drawn"], about["share"]) == ("C+", {"C-": 0, "C+": 1}, 0.0)
        assert len(taught(sets["critic-0"])) == 1


def test_questions_without_a_readable_consensus_are_left_out_and_counted(debated, tmp_path):
    record(debated, "5+5", [None, None, None], [None, None, None], consensus="")
    record(debated, "6+6", ["1", "2", "3"], ["1", "2", "3"], consensus="1", stopped="running")
    record(debated, "7+7", ["1", "2", "3"], ["1", "2", "3"], consensus="", stopped="error")
    record(debated, "8+8", ["1", "1", "1"], ["1", "1", "1"], consensus="1", split="test")
    record(debated, "9+9", ["1", "1", "1"], ["1", "1", "1"], consensus="1", settings={})
    sets = debate_sets(debated, tmp_path / "sets", settings=ALL, validation_share=0)
    told = sets.report["questions"]
    assert (told["read"], told["used"]) == (9, 4)
    assert told["left_out"] == {
        "broke off": 1,
        "every call failed": 1,
        "no debate": 1,
        "no readable consensus": 1,
        "split for evaluation": 1,
    }
    counts = sets["generator-0"].manifest["counts"]
    assert counts["questions"] == 9
    assert counts["questions left out: no readable consensus"] == 1
    assert {row for node in sets for row in questions(sets[node])} == {"1+1", "2+2", "3+3", "4+4"}


def test_weak_majorities_can_be_left_out(debated, tmp_path):
    record(debated, "5+5", ["1", "2", "3"], ["1", "2", "3"], consensus="1")
    rules = DebateSetSettings(minimum_agreement=0.7)
    sets = debate_sets(debated, tmp_path / "sets", settings=rules, validation_share=0)
    assert sets.report["questions"]["left_out"] == {"agreement below 0.7": 2}  # 5+5 with a third, 3+3 with two thirds
    assert {row for node in sets for row in questions(sets[node])} == {"1+1", "2+2", "4+4"}


def test_doubtful_labels_can_weigh_less(debated, tmp_path):
    rules = DebateSetSettings(weigh_by_agreement=True)
    sets = debate_sets(debated, tmp_path / "sets", settings=rules, validation_share=0)
    weights = {row.origin.task_id: row.messages[-1]["weight"] for row in sets["generator-1"].examples()}
    assert weights == {"id of 1+1": 1.0, "id of 3+3": pytest.approx(2 / 3, abs=1e-5)}


def test_the_report_tells_how_good_the_labels_are_without_using_gold(traces, tmp_path):
    record(traces, "1+1", ["2", "2", "3"], ["2", "2", "2"], consensus="2", reward=1.0)
    record(traces, "4+4", ["9", "8", "9"], ["9", "9", "8"], consensus="9", reward=0.0)
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert sets.report["pseudo_labels"] == {
        "agreement": pytest.approx((1 + 2 / 3) / 2, abs=1e-5),
        "unanimous": 0.5,
        "scored": 2,
        "accuracy": 0.5,
    }
    assert "4+4" in questions(sets["generator-0"])  # the label counts, not the gold


def test_an_agent_without_a_row_is_kept_as_it_was_and_reported(traces, tmp_path):
    record(traces, "1+1", ["2", "2", None], ["2", "2", None], consensus="2")
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert sets.kept == ["generator-2", "critic-2"]
    assert "kept as it was" in sets.report["agents"]["critic-2"]["why"]
    assert not (tmp_path / "sets" / "critic-2").exists()
    assert list(sets) == ["generator-0", "generator-1", "critic-0", "critic-1"]


def test_an_agent_that_always_fails_gets_nothing_and_harms_nobody(traces, tmp_path):
    broken = {(2, 1), (2, 2)}
    record(traces, "1+1", ["2", "2", "2"], ["2", "2", "2"], consensus="2", failed=broken)
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert sets.kept == ["generator-2", "critic-2"]
    assert sets.report["pseudo_labels"]["agreement"] == pytest.approx(2 / 3, abs=1e-5)


def test_a_critic_without_a_first_answer_of_its_own_neither_repaired_nor_stayed(traces, tmp_path):
    record(traces, "1+1", ["2", "2"], ["2", "2"], consensus="2", failed={(1, 1)})
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert sets.report["agents"]["critic-1"]["found"] == {"C-": 0, "C+": 0}


def test_one_agent_alone_checks_itself_and_learns_of_it(traces, tmp_path):
    record(traces, "1+1", ["3"], ["2"], consensus="2")
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert sets.kept == ["generator-0"]
    assert questions(sets["critic-0"], "repair") == ["1+1"]


def test_debates_of_one_round_have_no_critics(traces, tmp_path):
    record(traces, "1+1", ["2", "3"], consensus="2")
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert list(sets.report["agents"]) == ["generator-0", "generator-1"]
    assert list(sets) == ["generator-0"]


def test_of_three_rounds_the_first_and_the_last_answer_decide(traces, tmp_path):
    record(traces, "1+1", ["2", "3", "2"], ["3", "3", "2"], ["2", "2", "3"], consensus="2")
    sets = debate_sets(traces, tmp_path / "sets", settings=DebateSetSettings(mixing="authors"), validation_share=0)
    found = {node: about["found"] for node, about in sets.report["agents"].items() if "critic" in node}
    assert found == {"critic-0": {"C-": 0, "C+": 1}, "critic-1": {"C-": 1, "C+": 0}, "critic-2": {"C-": 0, "C+": 0}}
    (row,) = sets["critic-1"].examples()
    assert len(row.messages) == 6


def test_nothing_for_anybody_is_an_error_that_counts_why(traces, tmp_path):
    record(traces, "1+1", [None, None], [None, None], consensus="")
    with pytest.raises(EmptyHarvestError, match=r"no readable consensus: 1.*take more questions"):
        debate_sets(traces, tmp_path / "sets", settings=ALL)
    with pytest.raises(EmptyHarvestError, match=r"no debates in run 'other'.*cmat-graph debate"):
        debate_sets(traces, tmp_path / "sets", run="other", settings=ALL)
    assert list(tmp_path.glob("*sets*")) == []


def test_held_out_questions_are_refused_by_text_whatever_their_ids(debated, tmp_path):
    with pytest.raises(LeakError, match="held-out"):
        debate_sets(debated, tmp_path / "sets", settings=ALL, held_out=[Task(id="other", prompt=" 3+3 ")])
    with pytest.raises(LeakError, match="held-out"):
        debate_sets(debated, tmp_path / "sets", settings=ALL, held_out=[Task(id="id of 3+3", prompt="worded anew")])
    assert debate_sets(debated, tmp_path / "sets", settings=ALL, held_out=[Task(id="x", prompt="5+3")])


def test_validation_questions_are_the_same_for_all_agents(traces, tmp_path):
    for number in range(40):
        record(traces, f"1+{number}", ["2", "3"], ["2", "2"], consensus="2")
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0.3)
    held = {row.origin.task_id for row in sets["generator-0"].examples("validation")}
    assert 4 <= len(held) <= 20
    for dataset in sets.values():
        assert {row.origin.task_id for row in dataset.examples("validation")} <= held
        assert not held & {row.origin.task_id for row in dataset.examples()}


def test_labels_that_contradict_each_other_are_counted(traces, tmp_path):
    record(traces, "1+1", ["2"], ["2"], consensus="2", run="a")
    record(traces, "1+1", ["3"], ["3"], consensus="3", run="b")
    record(traces, "2+2", ["4"], ["4"], consensus="4", run="a")
    record(traces, "2+2", ["4.0"], ["4.0"], consensus="4.0", run="b")
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert sets.report["questions"]["contradictory"] == 1


def test_the_same_debates_make_the_same_bytes_in_whatever_order_they_were_recorded(tmp_path):
    hashes = []
    for turn in (1, -1):
        store = SQLTraceStore("sqlite://")
        for number in range(30)[::turn]:
            record(store, f"q{number}", ["2", "3", "2"], ["2", "2", "2" if number % 2 else "3"], consensus="2")
        sets = debate_sets(store, tmp_path / f"sets{turn}", settings=ALL, validation_share=0.2)
        hashes.append({node: (dataset.hash, dataset.manifest["files"]) for node, dataset in sets.items()})
    assert hashes[0] == hashes[1]


def test_another_seed_draws_others(traces, tmp_path):
    for number in range(40):
        wrong = "3" if number % 4 == 0 else "2"
        record(traces, f"q{number}", [wrong, "2"], ["2", "2"], consensus="2")
    drawn = [
        questions(debate_sets(traces, tmp_path / str(seed), settings=DebateSetSettings(seed=seed))["critic-0"])
        for seed in (0, 1, 1)
    ]
    assert drawn[0] != drawn[1] == drawn[2]


def test_the_folder_is_opened_again_and_nothing_else_is_overwritten(debated, tmp_path):
    made = debate_sets(debated, tmp_path / "sets", settings=ALL, validation_share=0)
    again = DebateSets(tmp_path / "sets")
    assert {node: dataset.hash for node, dataset in again.items()} == {node: d.hash for node, d in made.items()}
    debate_sets(debated, tmp_path / "sets", settings=ALL, validation_share=0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="something else"):
        debate_sets(debated, tmp_path / "other", settings=ALL)
    with pytest.raises(DatasetError, match="debate_sets"):
        DebateSets(tmp_path / "other")
    assert Dataset(tmp_path / "sets" / "critic-0").manifest["node"] == "critic-0"


@pytest.mark.parametrize(
    "wrong", [{"mixing": "half"}, {"loss": "none"}, {"w": 1.5}, {"minimum_agreement": -0.1}, {"kind": "colour"}]
)
def test_rules_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        DebateSetSettings(**wrong)


def test_a_damaged_recording_counts_no_billion_agents(traces, tmp_path):
    told = {"agents": 10**12, "rounds": "two", "kind": "number"}
    record(traces, "1+1", ["2", "2"], ["2", "2"], consensus="2", settings={"debate": told})
    record(traces, "2+2", ["4", "4"], ["4", "4"], consensus="4", settings={"debate": "none"})
    sets = debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    assert len(sets) == 4
    assert sets.report["questions"]["left_out"] == {"no debate": 1}


def test_a_kind_of_answer_can_be_given_where_none_was_recorded(traces, tmp_path):
    record(traces, "1+1", ["2", "2.0"], ["2", "2"], consensus="2", settings={"debate": {}})
    with pytest.raises(EmptyHarvestError, match=r"settings\.kind"):
        debate_sets(traces, tmp_path / "sets", settings=ALL, validation_share=0)
    sets = debate_sets(traces, tmp_path / "sets", settings=DebateSetSettings(kind="number"), validation_share=0)
    assert "generator-1" in sets
