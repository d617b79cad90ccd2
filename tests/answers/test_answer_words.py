"""Letters, verdicts and short texts as final answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.answers import answer_kind
from cmat_graph.nodes.verdicts import parse_verdict

LETTER, VERDICT, TEXT = (answer_kind(name) for name in ("letter", "verdict", "text"))


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("(A) is out, so it must be (c).", "C"),
        ("The answer is (B).", "B"),
        ("[D]", "D"),
        ("\\boxed{B}", "B"),
        ("\\boxed{\\text{(B)}}", "B"),
        ("(A) looks right, but \\boxed{\\text{C}}", "C"),
        ("Answer: B", "B"),
        ("**Answer: B.** All others fail", "B"),
        ("The answer is B.\nThat is all", "B"),
        ("B", "B"),
        ("b)", "B"),
        ("Answer: I think it is (D)", "D"),
        ("The answer is a matter of taste", None),
        ("", None),
        ("OK", None),
        ("12", None),
        ("\u200f(B)\u200e", "B"),
    ],
)
def test_reads_the_last_letter(reply, letter):
    assert LETTER.extract(reply) == letter


def test_letters_compare_whatever_their_case():
    assert LETTER.same("b", "B")
    assert not LETTER.same("A", "B")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("It lies in the north.\nAnswer: **Oslo**.", "Oslo"),
        ("Final Answer: the old  town", "the old town"),
        ("I think\n\nBergen!", "Bergen"),
        ("Answer: a\nAnswer: b\nwhich is right", "b"),
        ("Answer:", None),
        ("", None),
        (" \n", None),
    ],
)
def test_reads_a_short_text(reply, text):
    assert TEXT.extract(reply) == text


def test_texts_compare_whatever_their_case_and_closing_marks():
    assert TEXT.same("Oslo.", "oslo")
    assert not TEXT.same("Oslo", "Bergen")


REPLIES = [
    '{"reason": "wrong sum", "verdict": "revise"}',
    '{"decision": "approve", "reason": "fine"}',
    '{"passed": true}',
    '{"passed": false, "reason": "no"}',
    'Here: {"verdict": "reject"}',
    'They say "{"verdict": "approve"}" but it is not so',
    '{"verdict": "approve"} and more words',
    'I reject this. {"verdict": "approve"}',
    '{"verdict": "approve"} {"verdict": "reject"}',
    '{"verdict": "approve", "passed": false}',
    '{"verdict": "perhaps"}',
    '{"verdict"',
    "Approved.",
    "Verdict: approve",
    "revise: the sum is wrong",
    "REJECT",
    "I approve\nreject",
    "approve, but not now",
    '<think>approve?</think>{"verdict": "revise"}',
    "",
    "OK",
    "{}",
    '```json\n{"verdict": "approve"}\n```',
    '{"a": 1' + "0" * 5000 + "}",
    "{" * 5000,
]


def as_checker(reply):
    """Return what the graph's checker makes of a reply; None where it cannot be read."""
    verdict = parse_verdict({"role": "assistant", "content": reply}, "after")
    return None if verdict["category"] == "unreadable" else verdict["decision"]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_society_reads_a_verdict_as_the_checker_does(reply):
    assert VERDICT.extract(reply) == as_checker(reply)


@given(
    st.lists(st.sampled_from([*REPLIES[:22], "but", "\n", "?", " ", '"', "approve", "reject it", "not"]), max_size=5)
)
def test_a_society_reads_any_mixture_as_the_checker_does(parts):
    assert VERDICT.extract("".join(parts)) == as_checker("".join(parts))


@pytest.mark.parametrize("kind", [LETTER, VERDICT, TEXT], ids=lambda kind: kind.name)
@given(left=st.text(), right=st.text())
def test_sameness_is_reflexive_and_symmetric(kind, left, right):
    assert kind.same(left, left)
    assert kind.same(left, right) == kind.same(right, left)
