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
_AGAINST = re.compile(
    r"""[\s"'`*_#(>-]{0,9}(?:(?:verdict|decision)["'`*_]{0,3}\s*[:=]?\s*)?["'`*_]{0,3}(revise|reject)(?:e?[ds])?\b""",
    re.IGNORECASE,
)
_APPROVES = re.compile(
    r"""[\s"'`*_#(>-]{0,9}(?:(?:verdict|decision)["'`*_]{0,3}\s*[:=]?\s*)?["'`*_]{0,3}approved?["'`*_)]{0,4}\s*(?:[.!]|$)""",
    re.IGNORECASE,
)
_DOUBTS = re.compile(
    r"reject|revis|disapprov|\bno\b|\bnot\b|n['\u2019]t\b|never|nothing|unsafe|refus|\bden(?:y|ied)\b|\bbut\b"
    r"|trick|plant|inject|only (?:if|after|when|once)|unless|except|\?",
    re.IGNORECASE,
)
"""Words that leave no approval beside them certain."""
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)|\A.*</think(?:ing)?>", re.I | re.DOTALL)
"""What a reasoning model says to itself before it replies."""
_KEYS = ("verdict", "decision", "approved", "approve", "allowed", "passed", "pass")
_DECODER = json.JSONDecoder(strict=False)
_DECISIONS: dict[str, Decision] = {
    "approve": "approve", "approved": "approve", "pass": "approve", "passed": "approve", "ok": "approve",
    "revise": "revise", "revised": "revise", "retry": "revise", "fail": "revise", "failed": "revise",
    "reject": "reject", "rejected": "reject",
    "true": "approve", "yes": "approve", "false": "revise", "no": "revise",
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
    every revision is. An approval has to be the whole point of the reply: one that is quoted, doubted or contradicted
    is unreadable.
    """
    text = reply["content"][:READ_CHARS].strip()
    if "think" in text.lower():
        text = _THOUGHT.sub("", text).strip()
    called = [_from_fields(call["args"], phase) for call in reply.get("tool_calls", ())]
    if any(called):
        return _agreed(called, phase)
    objects, rest, ends = _json_objects(text)
    read = [verdict for fields in objects if (verdict := _from_fields(fields, phase))]
    if read:
        verdict = _agreed(read, phase)
        planted = verdict["passed"] and (not ends or _DOUBTS.search(rest))
        return _unreadable(phase) if planted else verdict
    if objects or text.startswith("{"):
        return _unreadable(phase)
    words = _plain_words(text)
    if len(words) == 1:
        return _verdict(phase, _DECISIONS[words.pop()], reason=" ".join(text.split())[:300])
    return _unreadable(phase)


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
    if not isinstance(fields, dict):
        return None
    named = {_DECISIONS.get(str(fields[key]).strip().lower()) for key in _KEYS if key in fields}
    if not named:
        return None
    decision = named.pop()
    if decision is None or named:
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


def _plain_words(text: str) -> set[str]:
    """Return the decisions that open a line; an `approve` only as a sentence of its own that nothing else doubts."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    words = {found.group(1).lower() for line in lines if (found := _AGAINST.match(line))}
    for at in {0, len(lines) - 1} if lines else ():
        if _APPROVES.match(lines[at]) and not _DOUBTS.search(text):
            words.add("approve")
    return words


def _json_objects(text: str) -> tuple[list[Any], str, bool]:
    """Return the JSON objects that stand in a text, the words around them, and whether one ends the text.

    A few tries, whatever the text.
    """
    found, rest, done, at = [], [], 0, text.find("{")
    for _ in range(50):
        if at < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):  # also an integer of more digits than Python reads
            end = at + 1
        else:
            found.append(value)
            rest.append(text[done:at])
            done = end
        at = text.find("{", end)
    return found, " ".join([*rest, text[done:]]), bool(found) and not text[done:].strip(" \t\n`.")
