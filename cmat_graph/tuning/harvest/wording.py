"""The wording of targets: reasoning before what it is about, and verdicts in the form that the checker is read in."""

from __future__ import annotations

import json
import re

from cmat_graph.tuning.dataset import WeightedMessage

_THOUGHT = re.compile(r"^(Thought|Reason|Reasoning):", re.MULTILINE)
_ACTION = re.compile(r"^(Action|Act|Final Answer):", re.MULTILINE)
_REASONS = ("reason", "reasoning", "thought", "rationale", "explanation")
REASON_CHARS = 1_000


def reason_first(message: WeightedMessage) -> WeightedMessage:
    """Put a reply's reasoning before its action, as a model has to write it to gain from it.

    ReAct turns (`Thought:` after `Action:`) and JSON objects (`reason` after the verdict); anything else stays, and so
    does a turn with several actions or thoughts, in which another action would come first.

    Example:
        >>> reason_first({"role": "assistant", "content": "Action: look\\nThought: I see nothing yet."})["content"]
        'Thought: I see nothing yet.\\nAction: look'

    """
    text = message["content"]
    thoughts, actions = list(_THOUGHT.finditer(text)), list(_ACTION.finditer(text))
    if len(thoughts) == len(actions) == 1 and actions[0].start() < thoughts[0].start():
        thought, action = thoughts[0], actions[0]
        if text[: thought.start()].count("```") % 2:  # inside the action's code
            return message
        first = text[: action.start()]
        moved = f"{first}{text[thought.start() :].strip()}\n{text[action.start() : thought.start()].strip()}"
        return {**message, "content": moved}
    if text.lstrip().startswith("{"):
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return message
        named = next((name for name in _REASONS if name in fields), None)
        if named is not None and next(iter(fields)) != named:
            return {**message, "content": json.dumps({named: fields.pop(named), **fields}, ensure_ascii=False)}
    return message


def verdict_reply(*, approve: bool, reason: str, score: float, hint: str = "") -> str:
    """Write a verdict as the checker's prompt asks for it: the reason first, then the decision.

    Example:
        >>> verdict_reply(approve=True, reason="It runs.", score=1.0)
        '{"reason": "It runs.", "verdict": "approve", "score": 1.0, "hint": ""}'

    """
    fields = {
        "reason": reason[:REASON_CHARS],
        "verdict": "approve" if approve else "revise",
        "score": round(score, 2),
        "hint": hint[:REASON_CHARS],
    }
    return json.dumps(fields, ensure_ascii=False)
