"""Read a checker's reply: a tool call, JSON somewhere in its text, or a plain word. The unreadable never approves."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, Field

from cmat_graph.nodes.attempt import judgement
from cmat_graph.types import Category, Decision, Message, Phase, Verdict

READ_CHARS = 20_000
"""How much of a reply is searched; a verdict does not stand behind megabytes."""
TOLD_CHARS = 1_000
"""How much of a reason or a hint is kept."""
_WORD = re.compile(
    r"[\W_]{0,9}((?:verdict|decision)[\W_]{1,9})?(approve|revise|reject)(?:e?[ds])?\b(.*)", re.IGNORECASE
)
_ENDS = re.compile(r"[\"'`*_)\]]{0,4}\s{0,4}(?:$|[.,:;!(–—-])")
"""What may follow a plain `approve`: `approve this? never` and `approve | revise` are no approvals."""
_DECODER = json.JSONDecoder(strict=False)
_OTHERS = re.compile(r"revise|reject", re.IGNORECASE)
_DECISIONS: dict[str, Decision] = {
    "approve": "approve", "approved": "approve", "pass": "approve", "passed": "approve", "ok": "approve",
    "revise": "revise", "revised": "revise", "retry": "revise", "fail": "revise", "failed": "revise",
    "reject": "reject", "rejected": "reject",
}  # fmt: skip
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
    every revision is.
    """
    text = reply["content"][:READ_CHARS]
    for objects in ([call["args"] for call in reply.get("tool_calls", ())], _json_objects(text)):
        read = [verdict for fields in objects if (verdict := _from_fields(fields, phase))]
        if read:
            return read[-1] if len({verdict["decision"] for verdict in read}) == 1 else _unreadable(phase)
    words = _plain_words(text)
    if len(words) == 1:
        return _verdict(phase, _DECISIONS[words.pop()], reason=" ".join(text.split())[:300])
    return _unreadable(phase)


def _unreadable(phase: Phase) -> Verdict:
    return judgement(
        phase, "revise", source="model", category="unreadable", reason="The checker's reply could not be read."
    )


def _from_fields(fields: Any, phase: Phase) -> Verdict | None:
    if not isinstance(fields, dict):
        return None
    named = next((fields[key] for key in ("verdict", "decision", "passed", "pass") if key in fields), None)
    if isinstance(named, bool):
        named = "approve" if named else "revise"
    decision = _DECISIONS.get(str(named).strip().lower())
    if decision is None:
        return None
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


def _plain_words(text: str) -> set[str]:
    """Return the decisions that open a line; an `approve` only where it is the line's whole point."""
    words, before = set(), ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if found := _WORD.match(line):
            label, word, rest = found.groups()
            goes_on = not label and word[0].islower() and (before[-1:].isalnum() or before[-1:] == ",")
            plain = not goes_on and _ENDS.match(rest) and not _OTHERS.search(rest)
            if plain or word.lower() != "approve":
                words.add(word.lower())
        before = line
    return words


def _json_objects(text: str) -> list[Any]:
    """Return the JSON objects that stand in a text, first to last; a few tries, whatever the text."""
    found, at = [], text.find("{")
    for _ in range(50):
        if at < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):  # also an integer of more digits than Python reads
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found
