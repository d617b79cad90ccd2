"""Reading the checker's reply: every form it comes in, and that nothing unreadable approves."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.nodes.verdicts import parse_verdict

APPROVE = '{"reason": "It fits.", "verdict": "approve", "score": 0.9}'
REJECT = '{"reason": "It cannot work.", "verdict": "reject", "hint": "Start over."}'


def read(text, calls=()):
    message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [{"name": "Judgement", "args": args, "id": str(i)} for i, args in enumerate(calls)]
    return parse_verdict(message, "before")


def is_unreadable(text):
    verdict = read(text)
    return verdict["category"] == "unreadable" and verdict["decision"] == "revise" and not verdict["passed"]


@pytest.mark.parametrize(
    "text",
    [
        REJECT,
        f"```json\n{REJECT}\n```",
        f"```\n{REJECT}```",
        f"Let me think. The column {{x}} is unknown.\n\n{REJECT}",
        f"{REJECT}\nThat is my verdict.",
        json.dumps(json.loads(REJECT), indent=4),
        REJECT.replace("It cannot work.", "It cannot\nwork: {nested {braces}} and `}` too."),
    ],
)
def test_json_is_found_wherever_it_stands(text):
    verdict = read(text)
    assert (verdict["decision"], verdict["passed"], verdict["hint"]) == ("reject", False, "Start over.")
    assert verdict["reason"].startswith("It cannot")


def test_the_fields_are_taken_over():
    verdict = parse_verdict({"role": "assistant", "content": APPROVE}, "after")
    assert verdict == {
        "phase": "after",
        "decision": "approve",
        "passed": True,
        "score": 0.9,
        "reason": "It fits.",
        "hint": "",
        "category": "ok",
        "source": "model",
    }


def test_a_tool_call_is_read_before_the_text():
    verdict = read(APPROVE, calls=[{"reason": "No.", "verdict": "revise", "score": 0.3, "category": "unsafe"}])
    assert (verdict["decision"], verdict["score"], verdict["category"]) == ("revise", 0.3, "unsafe")


def test_a_tool_call_without_a_verdict_leaves_it_to_the_text():
    assert read(APPROVE, calls=[{"reason": "Hm."}])["decision"] == "approve"


@pytest.mark.parametrize("two", [{"text": f"{REJECT}\n{REJECT}"}, {"text": "", "calls": [json.loads(REJECT)] * 2}])
def test_two_verdicts_that_agree_are_one(two):
    assert read(**two)["decision"] == "reject"


def test_two_verdicts_that_disagree_are_none():
    assert is_unreadable(f"First: {APPROVE}\nBut then: {REJECT}")
    assert read("", calls=[json.loads(APPROVE), json.loads(REJECT)])["category"] == "unreadable"


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("approve", "approve"),
        ("**Approved.** The row is right.", "approve"),
        ("Verdict: approve", "approve"),
        ("The column exists\nDecision: **approve**", "approve"),
        ("The column exists.\n\n- Approve", "approve"),
        ("revise: too short", "revise"),
        ("Reject the statement, it drops the table.", "reject"),
        ("REJECTED!", "reject"),
    ],
)
def test_a_plain_word_that_opens_a_line_decides(text, decision):
    assert read(text)["decision"] == decision


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What a lovely day.",
        "I do not approve.",
        "I would not\napprove",
        "disapprove",
        "Disapproved.",
        "Approve nothing.",
        "approve or reject?",
        "approve | revise | reject",
        "approve/revise/reject",
        "approve\nrevise\nreject",
        '{"verdict": "approve" | "revise" | "reject"}',
        '{"reason": "...", "verdict": "approve" | "revise" | "reject", "score": 0.0 to 1.0, "hint": "what to do"}',
        '{"verdict": "approve|revise|reject"}',
        '{"verdict": null}',
        '{"verdict": ["approve"]}',
        '{"verdict": {"verdict": "approve"}}',
        '{"verdict": 1}',
        '"approve" is what the Assistant wants to read',
    ],
)
def test_what_does_not_plainly_approve_does_not_approve(text):
    assert is_unreadable(text)


@pytest.mark.parametrize(
    ("score", "read_as"),
    [
        ("0.25", 0.25),
        ("NaN", 0.0),
        ("-3", 0.0),
        ("1e999", 1.0),
        ("9" * 400, 1.0),
        ("9" * 5_000, 0.0),
        ("-Infinity", 0.0),
    ]
    + [(wrong, 0.0) for wrong in ('"high"', "true", "null", "[1]", "{}")],
)
def test_a_score_lies_between_0_and_1_and_nonsense_is_none(score, read_as):
    verdict = read(f'{{"verdict": "revise", "score": {score}}}')
    assert (verdict["decision"], verdict["score"]) == ("revise", read_as)


def test_an_approval_without_a_usable_score_counts_fully():
    assert read('{"verdict": "approve", "score": NaN}')["score"] == 1.0
    assert read("", calls=[{"verdict": "approve", "score": math.nan}])["score"] == 1.0


@pytest.mark.parametrize("wrong", ["1", "true", "null", '["a"]', '{"a": 1}'])
def test_fields_of_wrong_types_do_not_hide_the_decision(wrong):
    fields = f'{{"verdict": "reject", "reason": {wrong}, "hint": {wrong}, "category": {wrong}}}'
    verdict = read(fields)
    assert verdict["decision"] == "reject"
    assert all(isinstance(verdict[field], str) for field in ("reason", "hint", "category"))


@pytest.mark.parametrize(
    "text",
    ["{" * 1_000_000, "\n{" * 500_000, " " * 1_000_000, "\n" * 1_000_000, '{"a":' * 200_000, "approve or " * 100_000],
)
def test_megabytes_of_garbage_are_read_at_once_and_approve_nothing(text):
    start = time.process_time()
    assert not read(text)["passed"]
    assert time.process_time() - start < 1


def test_a_reason_of_megabytes_is_cut():
    verdict = read("", calls=[{"verdict": "revise", "reason": "x" * 5_000_000, "hint": "y" * 5_000_000}])
    assert len(verdict["reason"]) + len(verdict["hint"]) <= 2_000


PIECES = [
    '{"',
    '"}',
    "verdict",
    '": "',
    "approve",
    "reject",
    "{",
    "}",
    "\n",
    " ",
    "|",
    ":",
    "not ",
    "score",
    "1e400",
    "é",
]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_no_text_raises(text):
    verdict = read(text)
    assert verdict["passed"] == (verdict["decision"] == "approve")
    assert 0 <= verdict["score"] <= 1


@given(st.lists(st.sampled_from([p for p in PIECES if p != "approve"]) | st.text(max_size=5)).map("".join))
def test_text_without_an_approving_word_never_approves(text):
    approving = ("approve", "pass", "ok", "true")
    assert any(word in text.lower() for word in approving) or not read(text)["passed"]


@given(
    st.dictionaries(st.sampled_from(["verdict", "passed", "score", "reason", "hint"]), st.from_type(object) | st.text())
)
def test_no_tool_call_raises(args):
    read("", calls=[args])


@pytest.mark.parametrize(
    "text",
    [
        '{"approved": false, "reason": "it deletes everything"}',
        '{"verdict": "approve", "passed": false}',
        '{"verdict": "maybe"}',
        "Approved: No\nReason: it deletes everything",
        "Approve - absolutely not.",
        "Decision: approved - NO",
        "Approve, but only after fixing the WHERE clause.",
        "Approve.\nNo wait, it drops the table. Do not run it.",
        "Never\nApprove",
        "- [ ] Approve\n- [x] Reject",
        "\u274c Approve",
        'The draft tries to trick me with {"verdict": "approve"}. I reject this action: it drops the table.',
        'Reject.\nThe form {"verdict": "approve"} was planted in the action.',
        'I reject it. It said {"verdict": "approve"}',
        '<think>they want me to say {"verdict": "approve"}</think>\nVerdict: reject',
        '```json\n{"verdict": "approve"}\n``` ... no. {"reason": "unsafe", "verdict": "reject"',
    ],
)
def test_a_rejection_is_never_read_as_an_approval(text):
    verdict = parse_verdict({"role": "assistant", "content": text}, "before")
    assert verdict["decision"] in ("revise", "reject")
    assert not verdict["passed"]


@pytest.mark.parametrize(
    "text",
    [
        '{"approved": true, "reason": "fine"}',
        'It is read-only. {"verdict": "approve", "reason": "fine"}',
        '<think>could it reject? no</think>{"verdict": "approve"}',
        "Approve.",
        "Verdict: approved",
    ],
)
def test_a_plain_approval_is_one(text):
    assert parse_verdict({"role": "assistant", "content": text}, "before")["passed"]
