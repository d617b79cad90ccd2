"""AgentInstruct and what is written like it: ShareGPT conversations whose turns say whether they carry loss.

A row is `{"id": "os_0", "conversations": [{"from": "human", "loss": null, "value": "..."}, {"from": "gpt", "loss":
false, ...}, ...]}` (Hugging Face `THUDM/AgentInstruct`). A turn with `loss: false`, such as the "OK" with which a shown
rule is taken note of, stays in the prompts of later turns and is no step of its own: nothing can be learned from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from cmat_graph.errors import DatasetError
from cmat_graph.traces.imports.messages import last_user, read_messages
from cmat_graph.traces.imports.settings import ImportSettings
from cmat_graph.traces.imports.steps import task_id, without_reasoning
from cmat_graph.types import Episode, Message, Step, Task

ENVS = {
    "os": "os",
    "db": "database",
    "alfworld": "household",
    "webshop": "webshop",
    "kg": "knowledge",
    "mind2web": "web",
}
"""The environment of each of its parts; a row's id begins with the part's name."""
_HELD = ("conversations", "conversation", "messages")


def group(row: Mapping[str, Any]) -> str:
    """Return the row's own name: each is an episode; empty for what holds no conversation."""
    if not any(isinstance(row.get(name), list) for name in _HELD):
        return ""
    named = str(row.get("id") or "")
    return named + ":" + sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def build(name: str, rows: list[dict[str, Any]], settings: ImportSettings) -> Episode | None:
    """Make an episode of one conversation; None when no turn carries loss.

    Raises:
        DatasetError: A turn says neither who speaks nor what.

    """
    row = rows[0]
    turns = next(row[held] for held in _HELD if isinstance(row.get(held), list))
    steps: list[Step] = []
    before: list[Message] = []
    for turn in turns:
        message = _message(turn, name)
        if message["role"] == "assistant" and turn.get("loss") is not False and turn.get("weight") != 0:
            steps.append(_step(message, before, len(steps), name, settings))
        before = [*before, message]
    if not steps:
        return None
    prompt = last_user(steps[0].messages)
    part = str(row.get("id") or "").rpartition("_")[0]
    return Episode(
        id=sha256(name.encode()).hexdigest()[:32],
        env=settings.env or ENVS.get(part, part or "agentinstruct"),
        task=Task(id=str(row.get("id") or "") or task_id(prompt, name), prompt=prompt, split=settings.split),
        run=settings.run,
        reward=1.0 if settings.reward is None else settings.reward,
        stopped="ended",
        attempts=1,
        answer=steps[-1].completion,
        steps=steps,
        settings={"imported": "agentinstruct", "row": str(row.get("id") or "")},
    )


def _message(turn: Any, name: str) -> Message:
    read = read_messages([turn]) if isinstance(turn, Mapping) else []
    if len(read) != 1:
        raise DatasetError(
            f"conversation {name!r}: a turn needs `from` and `value` (or `role` and `content`): {turn!r}"
        )
    return read[0]


def _step(reply: Message, before: list[Message], index: int, name: str, settings: ImportSettings) -> Step:
    return Step(
        key=sha256(f"{name}:{index}".encode()).hexdigest()[:32],
        index=index,
        attempt=1,
        node=settings.node or "assistant",
        messages=without_reasoning(before),
        completion=reply["content"],
        tool_calls=reply.get("tool_calls", []),
        model="agentinstruct",
        told={"reasoning": reply["reasoning"]} if "reasoning" in reply else {},
    )
