"""OpenAI fine-tuning JSONL: `messages` with a `weight` of 0 or 1 on each assistant turn, `tools`, and preference rows.

Rules of the service that are kept: arguments of calls are JSON text; a turn that only calls has no content; a tool's
message answers a call by its id; the last message is the assistant's. It has no place for thoughts: none are written.
Supervised rows follow its chat format, pairs its preference format (`input`, `preferred_output`,
`non_preferred_output`); it takes no rows that are only judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from cmat_graph.tuning.dataset import Example, Pair
from cmat_graph.tuning.interchange.forms import Form, JsonRow, UnfitError, weight_of, with_ids
from cmat_graph.types import Message


def sft(example: Example) -> Iterator[JsonRow]:
    """Write a conversation with a weight on each of the assistant's turns."""
    targets = example.targets
    if not targets:
        raise UnfitError("no target")
    held = example.messages[: targets[-1] + 1]
    written = messages(held)
    for row, message in zip(written, held, strict=True):
        if row["role"] == "assistant":
            row["weight"] = 1 if weight_of(message) > 0 else 0
    yield {"messages": written, **_tools(example.tools)}


def pairs(pair: Pair) -> Iterator[JsonRow]:
    """Write a preference."""
    chosen = messages([*pair.prompt, pair.chosen])
    rejected = messages([*pair.prompt, pair.rejected])
    told = _tools(pair.tools)
    asked = {"messages": chosen[:-1], **told, **({"parallel_tool_calls": True} if told else {})}
    yield {"input": asked, "preferred_output": chosen[-1:], "non_preferred_output": rejected[-1:]}


def messages(held: Sequence[Message]) -> list[dict[str, Any]]:
    """Write messages as the chat API takes them.

    Example:
        >>> call = {"name": "add", "args": {"a": 2}, "id": ""}
        >>> messages([{"role": "assistant", "content": "", "tool_calls": [call]}])[0]["tool_calls"]
        [{'id': 'call_1', 'type': 'function', 'function': {'name': 'add', 'arguments': '{"a": 2}'}}]

    """
    rows = []
    for message in with_ids(held):
        row: dict[str, Any] = {"role": message["role"], "content": message["content"]}
        if calls := message.get("tool_calls"):
            row["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": json.dumps(call["args"], ensure_ascii=False)},
                }
                for call in calls
            ]
            row["content"] = message["content"] or None
        if message["role"] == "tool":
            row["tool_call_id"] = message["tool_call_id"]
        rows.append(row)
    return rows


def _tools(tools: list[dict[str, Any]]) -> dict[str, Any]:
    return {"tools": tools} if tools else {}


FORM = Form(sft=sft, pairs=pairs)
