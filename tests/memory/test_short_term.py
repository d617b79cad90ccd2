from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.memory import recall, remember, window
from cmat_graph.memory.chroma import ChromaStore
from cmat_graph.types import Reflection


def turns(*texts):
    roles = ("assistant", "user")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def test_what_fits_stays_as_it_is():
    trajectory = turns("a", "b", "c", "d")
    assert window(trajectory, max_chars=100) == (trajectory, 0)


def test_the_oldest_turns_go_first_and_it_says_so():
    kept, left_out = window(turns("a" * 50, "b" * 50, "c", "error"), max_chars=20)
    assert ([m["content"] for m in kept], left_out) == (["c", "error"], 2)


def test_the_latest_action_and_its_error_always_stay():
    kept, _ = window(turns("a", "b", "c" * 500, "d" * 500), max_chars=10)
    assert [len(m["content"]) for m in kept] == [500, 500]


@given(st.lists(st.text(max_size=40), max_size=12), st.integers(0, 200))
def test_a_window_is_a_tail_that_starts_with_the_assistant(texts, size):
    trajectory = turns(*texts)
    kept, left_out = window(trajectory, max_chars=size)
    assert kept == trajectory[left_out:]
    assert not kept or kept[0]["role"] == "assistant"


def test_lessons_come_from_like_tasks_only_and_once(tmp_path):
    store = ChromaStore(tmp_path)
    for task in ("Count the cities of Norway", "Count the cities of Peru"):
        remember(store, Reflection(text="Use COUNT(*).", task=task, env="database"))
    remember(store, Reflection(text="Mind the price.", task="Raise the price of the lamp", env="database"))
    found = recall(store, env="database", node="assistant", task="Count the cities of Norway!")
    assert found == ["Use COUNT(*)."]  # the lamp's lesson would only distract
    assert recall(store, env="shell", node="assistant", task="Count the cities") == []
