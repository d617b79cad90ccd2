"""Short-term memory: the window over an attempt's trajectory."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages.utils import count_tokens_approximately

from cmat_graph.memory import window
from cmat_graph.memory.short_term import count_tokens, shorten
from cmat_graph.nodes.calling import to_langchain


def turns(*texts):
    """Actions and what came of each; a text with a `!` is an error."""
    told = [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{**message, "error": True} if "!" in message["content"] else message for message in told]


def texts(messages):
    return [message["content"] for message in messages]


def test_what_fits_stays_as_it_is():
    trajectory = turns("a", "b", "c", "d")
    assert window(trajectory, max_tokens=100) == (trajectory, [], 0)
    assert window([], max_tokens=100) == ([], [], 0)


def test_the_oldest_turns_go_first_and_it_says_which():
    kept, left_out, start = window(turns("a" * 50, "b" * 50, "c", "d"), max_tokens=20)
    assert (texts(kept), texts(left_out), start) == (["c", "d"], ["a" * 50, "b" * 50], 2)


def test_the_latest_action_and_its_result_stay_whole_however_long():
    kept, _, _ = window(turns("a", "b", "c" * 5_000, "d" * 5_000), max_tokens=10)
    assert texts(kept) == ["c" * 5_000, "d" * 5_000]


def test_the_latest_error_stays_when_it_is_older_than_what_fits():
    trajectory = turns("1", "no!", "2", "bad!", *"abcdefghij" * 4)
    kept, left_out, start = window(trajectory, max_tokens=60)
    assert texts(kept) == ["2", "bad!", *texts(trajectory[start:])]
    assert texts(left_out) == ["1", "no!", *texts(trajectory[4:start])]
    assert start < len(trajectory) - 2


def test_an_error_and_the_latest_turn_stay_even_past_the_budget():
    kept, _, _ = window(turns("why", "bad!", "a", "b", "c", "d"), max_tokens=1)
    assert texts(kept) == ["why", "bad!", "c", "d"]


def test_an_endless_older_error_is_cut_in_its_middle():
    trajectory = turns("SELECT", "Error! " + "x" * 40_000 + " at line 7", "a", "b", "c", "d")
    kept, _, _ = window(trajectory, max_tokens=400)
    cut = kept[1]["content"]
    assert cut.startswith("Error! xx")
    assert cut.endswith("xx at line 7")
    assert "characters were cut here]" in cut
    assert texts(kept)[2:] == ["a", "b", "c", "d"]
    assert count_tokens(kept) <= 400


def test_an_endless_argument_of_a_failed_call_is_cut_too():
    call = {"name": "write", "args": {"path": "a.py", "text": ["x" * 40_000]}, "id": "1"}
    trajectory = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "Disk full.", "tool_call_id": "1", "error": True},
        *turns("a", "b"),
    ]
    kept, _, _ = window(trajectory, max_tokens=300)
    assert kept[0]["tool_calls"][0]["args"]["path"] == "a.py"
    assert len(kept[0]["tool_calls"][0]["args"]["text"][0]) < 1_000
    assert len(call["args"]["text"][0]) == 40_000


def test_a_call_never_parts_from_its_results():
    calls = [{"name": "look", "args": {"at": "x" * 200}, "id": str(i)} for i in range(2)]
    both = [{"role": "tool", "content": "seen", "tool_call_id": call["id"]} for call in calls]
    trajectory = [{"role": "assistant", "content": "", "tool_calls": calls}, *both, *turns("a", "b")]
    assert window(trajectory, max_tokens=50).kept == turns("a", "b")
    assert window([*turns("a", "b"), *trajectory[:3]], max_tokens=50).kept == trajectory[:3]


def test_any_counter_will_do():
    kept, _, _ = window(turns(*"abcdefgh"), max_tokens=4, count=len)
    assert texts(kept) == ["e", "f", "g", "h"]


@given(st.lists(st.sampled_from(["ok", "wrong!", "a longer text"]), max_size=16), st.integers(-5, 120))
@example(["wrong!"] * 6, 20)
def test_a_window_is_the_longest_tail_that_fits_beside_the_latest_error(told, budget):
    trajectory = turns(*told)
    kept, left_out, start = window(trajectory, max_tokens=budget)

    def beside_error(first):
        errors = [i for i, text in enumerate(told) if "!" in text]
        at = errors[-1] // 2 * 2 if errors else first
        return [*trajectory[at : min(at + 2, first)], *trajectory[first:]]

    possible = range(0, len(trajectory), 2)
    fitting = [first for first in possible if count_tokens(beside_error(first)) <= budget]
    assert start == (fitting[0] if fitting else max(possible, default=0))
    assert kept == beside_error(start)
    assert len(kept) + len(left_out) == len(trajectory)
    roles = [message["role"] for message in kept]
    assert roles == ["assistant", "user"] * (len(kept) // 2) + ["assistant"] * (len(kept) % 2)


@given(st.lists(st.text(max_size=60), max_size=8))
def test_tokens_are_estimated_as_langchain_does(told):
    messages = turns(*told)
    assert count_tokens(messages) == count_tokens_approximately([to_langchain(message) for message in messages])


@given(st.text(min_size=1, max_size=50), st.integers(0, 2_000), st.integers(-10, 1_500))
def test_a_text_is_shortened_to_what_was_asked_or_to_the_least(word, times, chars):
    text = word * times
    short = shorten(text, chars)
    assert short == text or (len(short) <= max(200, chars) and "characters were cut here]" in short)
