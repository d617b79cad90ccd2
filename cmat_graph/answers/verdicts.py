"""The decision in a checker's reply as a final answer, so that a society of models can vote on a verdict.

Reads what the graph's checker node reads, by the same rules: JSON somewhere in the reply, or a plain word at the start
of a line. An approval has to be the whole point of the reply; a quoted, doubted or contradicted one is unreadable.
"""

from __future__ import annotations

import json
import re
from typing import Any

from cmat_graph.types import Decision

READ_CHARS = 20_000
"""How much of a reply is searched; a verdict does not stand behind megabytes."""
_SAYS = r"""[\s"'`*_#(>-]{0,9}(?:(?:verdict|decision)["'`*_]{0,3}\s*[:=]?\s*)?["'`*_]{0,3}"""
_AGAINST = re.compile(_SAYS + r"(revise|reject)(?:e?[ds])?\b", re.IGNORECASE)
_APPROVES = re.compile(_SAYS + r"""approved?["'`*_)]{0,4}\s*(?:[.!]|$)""", re.IGNORECASE)
_DOUBTS = re.compile(
    r"reject|revis|disapprov|\bno\b|\bnot\b|n['\u2019]t\b|never|nothing|unsafe|refus|\bden(?:y|ied)\b|\bbut\b"
    r"|trick|plant|inject|only (?:if|after|when|once)|unless|except|\?",
    re.IGNORECASE,
)
"""Words that leave no approval beside them certain."""
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)|\A.*</think(?:ing)?>", re.I | re.DOTALL)
_KEYS = ("verdict", "decision", "approved", "approve", "allowed", "passed", "pass")
_DECODER = json.JSONDecoder(strict=False)
_TRIES = 50
_DECISIONS: dict[str, Decision] = {
    "approve": "approve", "approved": "approve", "pass": "approve", "passed": "approve", "ok": "approve",
    "revise": "revise", "revised": "revise", "retry": "revise", "fail": "revise", "failed": "revise",
    "reject": "reject", "rejected": "reject",
    "true": "approve", "yes": "approve", "false": "revise", "no": "revise",
}  # fmt: skip


def extract_verdict(reply: str) -> str | None:
    """Return `approve`, `revise` or `reject`; None where a reply says none of them, or more than one.

    Example:
        >>> extract_verdict('{"reason": "The sum is wrong.", "verdict": "revise"}')
        'revise'

    """
    text = spoken(reply)
    objects, around, ends = find_objects(text)
    read = [decision_in(each) for each in objects if tells_verdict(each)]
    if read:
        agreed = len({each or "revise" for each in read}) == 1  # an object that contradicts itself asks for a revision
        decision = read[-1] if agreed else None
        return None if decision == "approve" and (not ends or is_doubted(around)) else decision
    return None if objects or text.startswith("{") else plain_decision(text)


def same_verdict(left: str, right: str) -> bool:
    """Tell whether two decisions are one."""
    return left.strip().lower() == right.strip().lower()


def spoken(reply: str) -> str:
    """Return what is searched of a reply: its beginning, without what the model said to itself."""
    text = reply[:READ_CHARS].strip()
    return _THOUGHT.sub("", text).strip() if "think" in text.lower() else text


def tells_verdict(fields: Any) -> bool:
    """Tell whether a JSON value has a field for the verdict."""
    return isinstance(fields, dict) and any(key in fields for key in _KEYS)


def decision_in(fields: dict[str, Any]) -> Decision | None:
    """Return the decision that an object's fields say; None where it is none, or they contradict each other."""
    named = {_DECISIONS.get(str(fields[key]).strip().lower()) for key in _KEYS if key in fields}
    return named.pop() if len(named) == 1 else None


def is_doubted(words: str) -> bool:
    """Tell whether words leave an approval beside them uncertain."""
    return bool(_DOUBTS.search(words))


def plain_decision(text: str) -> Decision | None:
    """Return the decision that opens a line; an approval only as a sentence of its own that nothing else doubts."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    words = {found.group(1).lower() for line in lines if (found := _AGAINST.match(line))}
    for at in {0, len(lines) - 1} if lines else ():
        if _APPROVES.match(lines[at]) and not is_doubted(text):
            words.add("approve")
    return _DECISIONS[words.pop()] if len(words) == 1 else None


def find_objects(text: str) -> tuple[list[Any], str, bool]:
    """Return the JSON objects that stand in a text, the words around them, and whether one ends the text.

    A few tries, whatever the text.
    """
    found, around, done, at = [], [], 0, text.find("{")
    for _ in range(_TRIES):
        if at < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):  # also an integer of more digits than Python reads
            end = at + 1
        else:
            found.append(value)
            around.append(text[done:at])
            done = end
        at = text.find("{", end)
    return found, " ".join([*around, text[done:]]), bool(found) and not text[done:].strip(" \t\n`.")
