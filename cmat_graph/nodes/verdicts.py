"""Read a checker's reply: a tool call, JSON somewhere in its text, or a plain word. The unreadable never approves."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from cmat_graph.answers.verdicts import (
    decision_in,
    find_objects,
    is_doubted,
    plain_decision,
    spoken,
    tells_verdict,
)
from cmat_graph.nodes.attempt import judgement
from cmat_graph.types import Category, Decision, Message, Phase, Verdict

TOLD_CHARS = 1_000
"""How much of a reason or a hint is kept."""
_CATEGORIES: tuple[Category, ...] = ("format", "error", "repetition", "incomplete", "wrong", "unsafe", "role", "other")


class Judgement(BaseModel):
    """Judge the Assistant's work; say the reason first."""

    reason: str = Field(description="Why, in one or two sentences.")
    verdict: Literal["approve", "revise", "reject"]
    score: float | None = Field(default=None, description="How good the work is, 0 to 1.")
    hint: str = Field(default="", description="What to do instead.")
    category: str = Field(default="", description=f"What is wrong, if anything: {', '.join(_CATEGORIES)}.")


def parse_verdict(reply: Message, phase: Phase) -> Verdict:
    """Read a checker's reply.

    A reply that cannot be read asks for a revision under the category `unreadable`: never an approval, and bounded as
    every revision is. An approval has to be the whole point of the reply: one that is quoted, doubted or contradicted
    is unreadable.
    """
    text = spoken(reply["content"])
    called = [_from_fields(call["args"], phase) for call in reply.get("tool_calls", ())]
    if any(called):
        return _agreed(called, phase)
    objects, around, ends = find_objects(text)
    read = [verdict for fields in objects if (verdict := _from_fields(fields, phase))]
    if read:
        verdict = _agreed(read, phase)
        planted = verdict["passed"] and (not ends or is_doubted(around))
        return _unreadable(phase) if planted else verdict
    if objects or text.startswith("{") or (decision := plain_decision(text)) is None:
        return _unreadable(phase)
    return _verdict(phase, decision, reason=" ".join(text.split())[:300])


def _agreed(read: list[Verdict | None] | list[Verdict], phase: Phase) -> Verdict:
    """Return the last verdict where all say the same."""
    last = read[-1]
    same = last is not None and all(each is not None and each["decision"] == last["decision"] for each in read)
    return last if same and last is not None else _unreadable(phase)


def _unreadable(phase: Phase) -> Verdict:
    return judgement(
        phase, "revise", source="model", category="unreadable", reason="The checker's reply could not be read."
    )


def _from_fields(fields: Any, phase: Phase) -> Verdict | None:
    if not tells_verdict(fields):
        return None
    if (decision := decision_in(fields)) is None:
        return _unreadable(phase)
    category = str(fields.get("category", "")).lower()
    return _verdict(
        phase,
        decision,
        reason=str(fields.get("reason") or ""),
        hint=str(fields.get("hint") or fields.get("fix_hint") or ""),
        category=category if category in _CATEGORIES else "",
        score=_score(fields.get("score")),
    )


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return float(min(1, max(0, value)))  # bounded before `float`, which no integer of a thousand digits fits


def _verdict(
    phase: Phase, decision: Decision, *, reason: str, hint: str = "", category: str = "", score: float | None = None
) -> Verdict:
    if decision == "approve":
        return judgement(phase, decision, source="model", reason=reason[:TOLD_CHARS], score=score)
    reason, hint = reason[:TOLD_CHARS], hint[:TOLD_CHARS]
    kind: Any = category or ("wrong" if phase == "after" else "other")
    return judgement(
        phase, decision, source="model", category=kind, reason=reason or "No reason was given.", hint=hint, score=score
    )
