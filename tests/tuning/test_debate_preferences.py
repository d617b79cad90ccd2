"""Pairs of the majority's replies over the minority's, of repairs, and of a person's word."""

from __future__ import annotations

import pytest
from debate_recordings import ASK, record, say

from cmat_graph.errors import ConfigurationError, EmptyHarvestError
from cmat_graph.tuning.dataset import Judged, Pair
from cmat_graph.tuning.debates import DebateSetSettings, preference_set, preference_sets


def pairs(dataset):
    return sorted((pair.contrast, pair.chosen["content"], pair.rejected["content"]) for pair in dataset.pairs())


@pytest.fixture
def debated(traces):
    record(traces, "1+1", ["2", "3"], ["2", "2"], consensus="2")
    record(traces, "2+2", ["4", "4"], ["5", "4"], consensus="4")
    return traces


def test_generators_pair_first_replies_and_critics_last_ones(debated, tmp_path):
    sets = preference_sets(debated, tmp_path / "sets", repairs=False, validation_share=0)
    wanted = [("minority", say(0, "2"), say(1, "3"))]
    assert pairs(sets["generator-0"]) == wanted
    assert pairs(sets["generator-1"]) == wanted
    wanted = [("minority", say(1, "4", 2), say(0, "5", 2))]
    assert pairs(sets["critic-0"]) == wanted
    assert pairs(sets["critic-1"]) == wanted


def test_a_critic_pair_stands_under_the_summary_that_this_critic_was_shown(debated, tmp_path):
    sets = preference_sets(debated, tmp_path / "sets", repairs=False, validation_share=0)
    for agent, other in ((0, 1), (1, 0)):
        (pair,) = sets[f"critic-{agent}"].pairs()
        assert [message["content"] for message in pair.prompt] == [
            ASK.format(question="2+2"),
            say(agent, "4"),
            f"Others: agent {other} says 4\nSolve again: 2+2",
        ]
        assert pair.origin.node == f"critic-{agent}"


def test_a_repair_sets_the_last_reply_over_the_first_for_both_seats(debated, tmp_path):
    sets = preference_sets(debated, tmp_path / "sets", validation_share=0)
    repaired = ("repaired", say(1, "2", 2), say(1, "3"))
    assert repaired in pairs(sets["generator-1"])
    assert repaired in pairs(sets["critic-1"])
    by_seat = {
        node: [pair for pair in dataset.pairs() if pair.contrast == "repaired"] for node, dataset in sets.items()
    }
    assert {node: len(found) for node, found in by_seat.items()} == {
        "generator-0": 0, "generator-1": 1, "critic-0": 0, "critic-1": 1,
    }  # fmt: skip
    assert len(by_seat["generator-1"][0].prompt) == 1
    assert len(by_seat["critic-1"][0].prompt) == 3


def test_each_reply_is_judged_for_its_own_agent(debated, tmp_path):
    sets = preference_sets(debated, tmp_path / "sets", validation_share=0)
    assert [row.good for row in sets["generator-1"].judged()].count(True) == 1
    assert sorted((row.completion["content"], row.good) for row in sets["critic-0"].judged()) == [
        (say(0, "2", 2), True),
        (say(0, "5", 2), False),
    ]


def test_agents_that_were_told_who_they_are_have_no_prompt_in_common(traces, tmp_path):
    record(traces, "1+1", ["2", "3"], ["2", "3"], consensus="2", identity=True)
    sets = preference_sets(traces, tmp_path / "sets", validation_share=0)
    assert sets.kept == ["generator-0", "generator-1"]
    assert list(sets) == ["critic-0", "critic-1"]


def test_a_persons_word_stands_in_place_of_the_vote(debated, tmp_path):
    # The vote said 9, a person said that the first agent is right.
    record(
        debated, "3+3", ["6", "9"], ["6", "9"], consensus="6", human={(0, 2): True, (1, 2): False}
    )  # fmt: skip
    human = preference_sets(debated, tmp_path / "human", judged_by="human", validation_share=0)
    assert pairs(human["critic-0"]) == [("human", say(0, "6", 2), say(1, "9", 2))]
    assert pairs(human["generator-1"]) == [("human", say(0, "6"), say(1, "9"))]
    voted = preference_sets(debated, tmp_path / "voted", judged_by="vote", validation_share=0)
    assert {pair.contrast for dataset in voted.values() for pair in dataset.pairs()} == {"minority", "repaired"}
    both = preference_sets(debated, tmp_path / "both", validation_share=0)
    assert both["critic-0"].count(Pair) == 2


def test_one_model_gets_all_pairs_once(debated, tmp_path):
    one = preference_set(debated, tmp_path / "one", validation_share=0)
    assert pairs(one) == sorted(
        [
            ("minority", say(0, "2"), say(1, "3")),
            ("minority", say(1, "4", 2), say(0, "5", 2)),
            ("minority", say(1, "4", 2), say(0, "5", 2)),  # under the chat of either critic
            ("repaired", say(1, "2", 2), say(1, "3")),
            ("repaired", say(1, "2", 2), say(1, "3")),
        ]
    )
    assert one.count(Judged) == 8


def test_agents_that_never_disagree_leave_nothing_to_prefer(traces, tmp_path):
    record(traces, "1+1", ["2", "2"], ["2", "2"], consensus="2")
    with pytest.raises(EmptyHarvestError, match="disagree"):
        preference_sets(traces, tmp_path / "sets")
    with pytest.raises(EmptyHarvestError, match="disagree"):
        preference_set(traces, tmp_path / "set")


def test_only_known_judges_and_agreements_count(debated, tmp_path):
    with pytest.raises(ConfigurationError, match="judged by"):
        preference_sets(debated, tmp_path / "sets", judged_by="dice")
    sure = preference_sets(
        debated, tmp_path / "sets", settings=DebateSetSettings(minimum_agreement=0.6), validation_share=0
    )
    assert "critic-0" not in sure  # 2+2 was even
