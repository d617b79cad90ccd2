"""Sets for one model of the same debates: union, pool, student, STaR."""

from __future__ import annotations

import pytest
from debate_recordings import ASK, record, say

from cmat_graph.errors import ConfigurationError, EmptyHarvestError, LeakError
from cmat_graph.tuning.dataset import hash_row
from cmat_graph.tuning.debates import (
    DebateSetSettings,
    debate_sets,
    pooled_set,
    preference_set,
    star_set,
    student_set,
    union_set,
)
from cmat_graph.types import Task


@pytest.fixture
def debated(traces):
    record(traces, "1+1", ["2", "2", "3"], ["2", "2", "2"], consensus="2")
    record(traces, "2+2", ["4", "5", None], ["4", "4.0", "4"], consensus="4")
    record(traces, "3+3", ["7", "6", "6"], ["6", "6", "7"], consensus="6")
    return traces


def taught(dataset):
    return sorted((row.messages[0]["content"], row.messages[-1]["content"]) for row in dataset.examples())


@pytest.mark.parametrize("mixing", ["proportion", "fraction", "authors"])
def test_the_union_holds_exactly_the_rows_that_the_agents_get(debated, tmp_path, mixing):
    rules = DebateSetSettings(mixing=mixing, w=0.4, seed=3)
    sets = debate_sets(debated, tmp_path / "sets", settings=rules, validation_share=0.2)
    one = union_set(debated, tmp_path / "union", settings=rules, validation_share=0.2)
    for part in ("train", "validation"):
        of_agents = sorted(hash_row(row) for dataset in sets.values() for row in dataset.examples(part))
        assert sorted(hash_row(row) for row in one.examples(part)) == of_agents
    assert one.manifest["node"] == "union"


def test_the_pool_holds_all_first_answers_that_hit_whoever_gave_them(debated, tmp_path):
    pool = pooled_set(debated, tmp_path / "pool", validation_share=0)
    assert taught(pool) == sorted(
        (ASK.format(question=question), say(agent, answer))
        for question, agent, answer in [
            ("1+1", 0, "2"), ("1+1", 1, "2"), ("2+2", 0, "4"), ("3+3", 1, "6"), ("3+3", 2, "6"),
        ]
    )  # fmt: skip


def test_the_pool_can_be_of_one_agents_answers_alone(debated, tmp_path):
    pool = pooled_set(debated, tmp_path / "pool", agents=[1], validation_share=0)
    assert taught(pool) == sorted(
        (ASK.format(question=q), say(1, answer)) for q, answer in [("1+1", "2"), ("3+3", "6")]
    )
    with pytest.raises(EmptyHarvestError):
        pooled_set(debated, tmp_path / "nobody", agents=[7], validation_share=0)


def test_the_pool_can_be_of_the_last_round(debated, tmp_path):
    pool = pooled_set(debated, tmp_path / "pool", rounds="last", validation_share=0)
    assert pool.manifest["rows"] == {"sft.train": 8}
    assert all(len(row.messages) == 4 for row in pool.examples())
    assert say(2, "7", 2) not in [said for _, said in taught(pool)]
    both = pooled_set(debated, tmp_path / "pool", rounds="both", validation_share=0)
    assert both.manifest["rows"] == {"sft.train": 13}


def test_the_student_answers_the_bare_question_with_the_winning_answer(debated, tmp_path):
    student = student_set(debated, tmp_path / "student", validation_share=0)
    rows = taught(student)
    assert [question for question, _ in rows] == [ASK.format(question=q) for q in ("1+1", "2+2", "3+3")]
    for (_, reply), answer in zip(rows, ("2", "4", "6"), strict=True):
        assert reply in [say(agent, given, 2) for agent in range(3) for given in (answer, f"{answer}.0")]
    assert all([m["role"] for m in row.messages] == ["user", "assistant"] for row in student.examples())
    again = student_set(debated, tmp_path / "again", validation_share=0)
    assert again.hash == student.hash


def test_the_student_can_learn_of_every_winner_and_be_asked_in_other_words(debated, tmp_path):
    student = student_set(
        debated,
        tmp_path / "student",
        every_winner=True,
        prompt=lambda task: [{"role": "user", "content": f"Quick: {task.prompt}"}],
        validation_share=0,
    )
    assert [question for question, _ in taught(student)].count("Quick: 1+1") == 3
    assert student.manifest["rows"] == {"sft.train": 8}


def test_star_keeps_what_is_right_by_gold_and_takes_hints_for_the_rest(traces, tmp_path):
    record(traces, "1+1", ["2"], consensus="2", run="plain", reward=1.0)
    record(traces, "2+2", ["5"], consensus="5", run="plain", reward=0.0)
    record(traces, "3+3", [None], consensus="", run="plain", reward=0.0)
    record(traces, "1+1", ["2.0"], consensus="2", run="hinted", reward=1.0)
    record(traces, "2+2", ["4"], consensus="4", run="hinted", reward=1.0, identity=True)
    record(traces, "3+3", ["7"], consensus="7", run="hinted", reward=0.0)
    star = star_set(traces, tmp_path / "star", run="plain", hinted="hinted", validation_share=0)
    assert taught(star) == [(ASK.format(question="1+1"), say(0, "2")), (ASK.format(question="2+2"), say(0, "4"))]
    assert [row.kind for row in star.examples()].count("repair") == 1
    assert len(list(star_set(traces, tmp_path / "star", run="plain", validation_share=0).examples())) == 1


def test_star_can_be_given_a_scorer(debated, tmp_path):
    gold = {"1+1": "3", "2+2": "5", "3+3": "0"}
    star = star_set(
        debated,
        tmp_path / "star",
        scorer=lambda task, reply: float(reply.endswith(f"Answer: {gold[task.prompt]}")),
        validation_share=0,
    )
    assert [said for _, said in taught(star)] == [say(2, "3"), say(1, "5")]


def test_star_without_gold_names_the_fix(debated, tmp_path):
    with pytest.raises(EmptyHarvestError, match="score=True"):
        star_set(debated, tmp_path / "star", run="label")
    with pytest.raises(ConfigurationError, match="two labels"):
        star_set(debated, tmp_path / "star", run="label", hinted="label")


@pytest.mark.parametrize("make", [union_set, pooled_set, student_set, preference_set])
def test_no_set_takes_held_out_questions(debated, tmp_path, make):
    with pytest.raises(LeakError):
        make(debated, tmp_path / "set", held_out=[Task(id="x", prompt="2+2")])
    assert not list(tmp_path.glob("*set*"))


def test_star_takes_no_held_out_question_from_either_run(traces, tmp_path):
    record(traces, "1+1", ["2"], consensus="2", run="plain", reward=1.0)
    record(traces, "2+2", ["4"], consensus="4", run="hinted", reward=1.0)
    with pytest.raises(LeakError):
        star_set(traces, tmp_path / "star", run="plain", hinted="hinted", held_out=[Task(id="x", prompt="2+2")])


def test_a_pool_of_unknown_rounds_is_refused(debated, tmp_path):
    with pytest.raises(ConfigurationError, match="first, last or both"):
        pooled_set(debated, tmp_path / "pool", rounds="second")
