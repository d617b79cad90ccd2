"""The exercise as the checker meets it in the graph: the same prompt, and a reply in the form that the graph reads."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from cmat_graph.drills.drill import Drill
from cmat_graph.nodes.calling import Prompt, from_langchain, show, transcript
from cmat_graph.nodes.verdicts import parse_verdict
from cmat_graph.types import Message, Verdict

RIGHT = "It is."


def ask_checker(drill: Drill) -> list[Message]:
    """Return the prompt that the graph's checker is given for this action before it runs.

    Byte for byte that of `nodes.checker`, in its shipped wording, where no probe noticed anything.
    """
    draft: Message = {"role": "assistant", "content": drill.reply}
    told = transcript({"task": drill.task.prompt, "trajectory": [*drill.before, draft]})
    request = f"Judge this action before it runs:\n{show(draft)}"
    return [
        {"role": "system", "content": str(_prompt().fill(drill.rules).text)},
        {"role": "user", "content": f"{told}\n\n{request}"},
    ]


def answer_of(drill: Drill) -> str:
    """Return what the checker should say: what the action should be, then how this one differs, then the verdict.

    So it solves the task before it judges: otherwise the first word of the reason already has to tell whether the
    action is right, with nothing written that it could be compared with. The hint is the action that mends it.
    """
    flaw = drill.flaw
    fields: dict[str, Any] = {
        "reason": f"It should be {drill.fixed} {RIGHT if flaw is None else flaw.reason}",
        "verdict": "approve" if flaw is None else flaw.decision,
        "score": 1.0 if flaw is None else 0.0,
        "hint": "" if flaw is None else flaw.fixed,
    }
    return json.dumps(fields, ensure_ascii=False)


def read_answer(reply: Any) -> Verdict:
    """Read a checker's reply as the graph does; its `hint` is the correction.

    Args:
        reply: The chat model's message, or its text.

    Example:
        >>> read_answer('{"reason": "It has no WHERE.", "verdict": "revise", "hint": "DELETE ..."}')["decision"]
        'revise'

    """
    message: Message = {"role": "assistant", "content": reply} if isinstance(reply, str) else from_langchain(reply)
    return parse_verdict(message, "before")


@cache
def _prompt() -> Prompt:
    return Prompt("checker")
