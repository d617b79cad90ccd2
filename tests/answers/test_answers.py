from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.answers import parse_answer, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("[1, 2.5]", [1, 2.5]),
        ("'Oslo'", ["Oslo"]),
        ("Oslo", ["Oslo"]),
        ("[unclosed", ["[unclosed"]),
        ("__import__('os')", ["__import__('os')"]),
        ("", [""]),
        ("[null, true]", [None, True]),
        ("{[1, 2]}", ["{[1, 2]}"]),
    ],
)
def test_reads_a_final_answer(text, answer):
    assert parse_answer(text) == answer


def test_one_value_compares_as_a_number():
    assert same_answer(["2011.0"], ["2011"])
    assert same_answer([26], ["26"])
    assert not same_answer(["Oslo"], ["oslo"])
    assert not same_answer(["1" + "0" * 400], ["1"])


def test_several_values_compare_as_sets():
    assert same_answer(["b", "a"], ["a", "b"])
    assert not same_answer(["a"], ["a", "b"])
    assert not same_answer([["a"], "b"], ["a", "b"])


@given(st.lists(st.text(), min_size=1))
def test_what_is_written_is_read_back(values):
    assert same_answer(parse_answer(json.dumps(values, ensure_ascii=False)), values)


@given(st.text())
def test_no_text_breaks_the_reader(text):
    assert isinstance(parse_answer(text), list)
