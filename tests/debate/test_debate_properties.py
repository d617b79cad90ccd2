"""What holds for every debate, whoever says what and whoever fails."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cmat_graph.debate import DebateSettings, Rules
from cmat_graph.debate.asking import Answered
from cmat_graph.debate.playing import play
from cmat_graph.debate.state import merge, to_call

FAILED, UNREADABLE = "failed", "unreadable"
SAYINGS = st.sampled_from(["1", "2", "3", UNREADABLE, FAILED])


@st.composite
def debates(draw):
    agents, rounds = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    said = draw(st.lists(st.lists(SAYINGS, min_size=agents, max_size=agents), min_size=rounds, max_size=rounds))
    chosen = DebateSettings(
        rounds=rounds,
        summarise=draw(st.booleans()),
        mode=draw(st.sampled_from(["critique", "cooperate", "identity"])),
        stop_when_unanimous=draw(st.booleans()),
        most_solutions=draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 3)),
    )
    return Rules.of(chosen, "arithmetic", agents), said, draw(st.booleans())


def mark(agent, round_=None):
    """Name an agent, and a round, without digits, which would be answers."""
    return f"<{'abcd'[agent]}{'' if round_ is None else 'wxyz'[round_ - 1] + '>'}"


def run(rules, said, summaries_fail):
    """Play a debate in which every reply is marked with its agent and round."""

    def heard(asked):
        return asked.messages[0]["content"]

    def reply(asked):
        if asked.role == "summary":
            return (
                Answered(error="RuntimeError: away") if summaries_fail else Answered(text=asked.messages[0]["content"])
            )
        word = said[asked.round - 1][asked.agent]
        if word == FAILED:
            return Answered(error="RuntimeError: away")
        named = mark(asked.agent, asked.round)
        return Answered(text=f"{named} Pass." if word == UNREADABLE else f"{named}\nAnswer: {word}")

    story = play(rules, "What is it?")
    asked = next(story)
    while True:
        try:
            asked = story.send([reply(each) for each in asked])
        except StopIteration as stop:
            return stop.value


@given(debates())
@settings(max_examples=100)
def test_what_agents_are_shown_is_of_earlier_rounds_and_of_others(debate):
    rules, said, fail = debate
    played = run(rules, said, fail)
    for turn in played.turns:
        prompt = "".join(message["content"] for message in turn.messages)
        for i in range(rules.agents):
            for m in range(turn.round, len(said) + 1):
                assert mark(i, m) not in prompt
        last = turn.messages[-1]["content"]
        assert mark(turn.agent) not in last
        others = [i for i, word in enumerate(said[turn.round - 2]) if i != turn.agent and word != FAILED]
        shown = [i for i in others if turn.round > 1 and mark(i, turn.round - 1) in last]
        if turn.round > 1:
            capped = not rules.settings.summarise or fail
            assert len(shown) == (min(len(others), rules.settings.most_solutions) if capped else len(others))
    for summary in played.summaries:
        assert mark(summary.agent) not in summary.messages[0]["content"]


@given(debates())
@settings(max_examples=100)
def test_the_vote_is_that_of_the_last_round_that_was_played(debate):
    rules, said, fail = debate
    played = run(rules, said, fail)
    rounds = played.turns[-1].round
    words = said[rounds - 1]
    counts = Counter(word for word in words if word not in (FAILED, UNREADABLE))
    assert len(played.turns) == rounds * rules.agents
    if not counts:
        assert played.vote.answer is None
    else:
        most = max(counts.values())
        assert counts[played.vote.answer] == most
        assert played.vote.tied == (sum(count == most for count in counts.values()) > 1)
    agreed = [
        m
        for m, words in enumerate(said, 1)
        if len(set(words)) == 1 and words[0] not in (FAILED, UNREADABLE) and rules.settings.stop_when_unanimous
    ]
    silent = [m for m, words in enumerate(said, 1) if set(words) == {FAILED}]
    assert rounds == min([len(said), *agreed, *silent])
    assert played == run(rules, said, fail)


@given(debates(), st.randoms())
@settings(max_examples=50)
def test_the_state_is_the_same_in_whatever_order_agents_come(debate, rng: random.Random):
    rules, said, fail = debate
    calls = [to_call(turn) for turn in run(rules, said, fail).turns]
    mixed = rng.sample(calls, len(calls))
    state = {"question": "What is it?", "turns": [], "summaries": []}
    for call in mixed:
        state = merge(state, {"turns": [call]})
    assert state["turns"] == calls
    assert merge(state, {"turns": [mixed[0]]})["turns"] == calls
