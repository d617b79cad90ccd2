"""Consensus of scripted debates, counted by hand (Multiagent Finetuning, appendix C.1)."""

from __future__ import annotations

import math

import pytest
from debate_recordings import record

from cmat_graph.diversity.consensus import measure_consensus
from cmat_graph.diversity.replies import read_sample
from cmat_graph.errors import ConfigurationError


@pytest.fixture
def debated(traces):
    record(traces, "1+1", ["2", "2", "3"], ["2", "2", "2"], consensus="2", split="test")  # 1
    record(traces, "2+2", ["4", "5", None], ["4", "4.0", None], consensus="4", split="test")  # 2/3
    record(traces, "3+3", [None, None, None], [None, None, None], consensus="", split="test")  # 0
    record(traces, "4+4", ["8", "8", "8"], ["8", "7", "6"], consensus="8", split="test", failed={(2, 2)})  # 1/3
    record(traces, "5+5", ["1", "1", "1"], ["1", "1", "1"], consensus="1", stopped="running")
    record(traces, "6+6", ["1", "1", "1"], ["1", "1", "1"], consensus="1", run="other")
    record(traces, "7+7", ["1", "1", "1"], ["1", "1", "1"], consensus="1", settings={})
    return traces


def test_consensus_counts_what_cannot_be_read_and_who_failed_as_disagreeing(debated):
    found = measure_consensus(read_sample(debated, "label"))
    assert found.value == pytest.approx((1 + 2 / 3 + 0 + 1 / 3) / 4)
    assert found.questions == 4
    assert found.each == {"0": 0.75, "1": 0.5, "2": 0.25}
    spread = [(value - 0.5) ** 2 for value in (1, 2 / 3, 0, 1 / 3)]
    assert found.stderr == pytest.approx(math.sqrt(sum(spread) / 3 / 4))


def test_plain_votes_of_one_round_have_a_consensus_too(traces):
    record(traces, "1+1", ["2", "2", "3"], consensus="2")
    assert measure_consensus(read_sample(traces, None)).value == pytest.approx(2 / 3)


def test_the_same_seed_draws_the_same_questions_in_every_iteration(traces):
    for number in range(20):
        record(traces, f"q{number}", ["2", "2"], ["2", "2"], consensus="2", run="one")
        record(traces, f"q{19 - number}", ["3", "2"], ["3", "3"], consensus="3", run="two")
    drawn = {
        (run, seed): [asked.question for asked in read_sample(traces, run, limit=5, seed=seed).asked]
        for run in ("one", "two")
        for seed in (0, 1)
    }
    assert drawn["one", 0] == drawn["two", 0] != drawn["one", 1]
    assert len(set(drawn["one", 0])) == 5
    assert len(read_sample(traces, "one", limit=5).agreements) == 20
    assert len(read_sample(traces, "one").asked) == 20


def test_a_run_without_debates_names_the_fix(debated):
    with pytest.raises(ConfigurationError, match="cmat-graph debate"):
        read_sample(debated, "nothing")
    with pytest.raises(ConfigurationError, match="at least one question"):
        read_sample(debated, "label", limit=0)
