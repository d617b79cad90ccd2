from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.answers import KINDS, answer_kind, vote
from cmat_graph.errors import ConfigurationError

NUMBER = answer_kind("number")
WAYS = {"12": ["12", "12.0", "012"], "7": ["7", "7.00"], "0.5": ["0.5", "1/2", "0.50"], "-3": ["-3", "-3.0"]}
"""Numbers, and several ways to write each."""
BALLOTS = st.lists(st.one_of(st.none(), st.sampled_from([way for ways in WAYS.values() for way in ways])), max_size=12)


def meant(answer):
    return next(number for number, ways in WAYS.items() if answer in ways)


def test_the_largest_group_wins_however_its_members_write_it():
    result = vote(["12", "7", "12.0", None, "7", "012"], NUMBER, seed=1)
    assert result.answer == "12"
    assert result.groups == ((0, 2, 5), (1, 4))
    assert result.winners == (0, 2, 5)
    assert result.share == 0.5
    assert not result.tied


def test_the_answer_is_what_most_of_the_winners_wrote():
    assert vote(["12.0", "12", "12.0"], NUMBER, seed=0).answer == "12.0"
    assert vote(["12.0", "12"], NUMBER, seed=0).answer == "12"


def test_the_speaker_of_a_group_said_its_answer_as_it_stands():
    answers = [r"\frac{2}{4}", "0.5", "0.5"]
    result = vote(answers, answer_kind("boxed"), seed=0)
    assert (result.answer, result.winners, result.speaker(answers)) == ("0.5", (0, 1, 2), 1)
    assert vote([None], answer_kind("boxed"), seed=0).speaker([None]) is None


def test_unreadable_answers_never_win():
    result = vote([None, None, None, "7"], NUMBER, seed=0)
    assert (result.answer, result.winners, result.share) == ("7", (3,), 0.25)


@pytest.mark.parametrize("answers", [[], [None], [None, None]])
def test_nothing_readable_gives_no_answer(answers):
    result = vote(answers, NUMBER, seed=0)
    assert result.answer is None
    assert result.groups == ()
    assert result.winners == ()
    assert result.share == 0.0
    assert not result.tied


def test_a_tie_is_drawn_by_the_seed_and_every_side_has_its_chance():
    drawn = Counter(vote(["1", "2", "3"], NUMBER, seed=seed).answer for seed in range(300))
    assert set(drawn) == {"1", "2", "3"}
    assert min(drawn.values()) > 60
    assert vote(["1", "2"], NUMBER, seed=5).tied


def test_a_chain_of_equivalent_answers_is_one_group_in_any_order():
    boxed = answer_kind("boxed")  # 0.5 is both fractions; by the published rule these are not each other
    for answers in (["\\frac{1}{2}", "\\frac{2}{4}", "0.5"], ["0.5", "\\frac{2}{4}", "\\frac{1}{2}"]):
        assert len(vote(answers, boxed, seed=0).groups) == 1
    assert len(vote(["\\frac{1}{2}", "\\frac{2}{4}"], boxed, seed=0).groups) == 2


@given(BALLOTS, st.integers(), st.randoms())
def test_the_order_of_the_voters_changes_nothing(answers, seed, random):
    order = list(range(len(answers)))
    random.shuffle(order)
    first = vote(answers, NUMBER, seed=seed)
    second = vote([answers[i] for i in order], NUMBER, seed=seed)
    assert first.answer == second.answer
    assert first.tied == second.tied
    assert set(first.winners) == {order[i] for i in second.winners}


@given(BALLOTS, st.integers())
def test_the_winner_has_a_largest_group_and_the_seed_alone_draws(answers, seed):
    result = vote(answers, NUMBER, seed=seed)
    assert result == vote(answers, NUMBER, seed=str(seed))
    sizes = Counter(meant(answer) for answer in answers if answer is not None)
    if not sizes:
        assert result.answer is None
        return
    assert result.answer is not None
    largest = max(sizes.values())
    assert sizes[meant(result.answer)] == largest == len(result.winners)
    assert result.tied == (list(sizes.values()).count(largest) > 1)
    assert sorted(i for group in result.groups for i in group) == [i for i, a in enumerate(answers) if a is not None]


@given(BALLOTS, st.integers(), st.data())
def test_writing_an_answer_otherwise_moves_no_vote(answers, seed, data):
    rewritten = [None if a is None else data.draw(st.sampled_from(WAYS[meant(a)])) for a in answers]
    first, second = vote(answers, NUMBER, seed=seed), vote(rewritten, NUMBER, seed=seed)
    assert (first.answer is None) == (second.answer is None)
    if not first.tied and first.answer is not None and second.answer is not None:
        assert NUMBER.same(first.answer, second.answer)
        assert first.winners == second.winners


def test_an_unknown_kind_is_named_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="known: number, integer, boxed, letter, verdict, text"):
        answer_kind("poem")
    assert all(KINDS[name].name == name for name in KINDS)
