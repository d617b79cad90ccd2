"""ms-swift's standard rows: `messages` with `loss` on each assistant turn, and `loss_scale` for other weights than 1.

Calls are messages of their own (`tool_call`, and `tool_response` for what came of them), in any version; the flags of a
turn stand on each of its messages. Pairs are `messages` and `rejected_messages`, judged rows have a `label`.
A thought stands before its reply in `<think>` tags, ms-swift's convention. `loss` needs ms-swift 3.8; `loss_scale` on a
message needs 4.6 and `--is_binary_loss_scale false`, without which every weight above 0 counts as 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from cmat_graph.tuning.dataset import Example, Judged, Pair
from cmat_graph.tuning.interchange.forms import Form, JsonRow, weight_of, whole
from cmat_graph.types import Message


def sft(example: Example) -> Iterator[JsonRow]:
    """Write a conversation, or one for each target where thoughts are to be learned."""
    for part in whole(example):
        rows: list[dict[str, Any]] = []
        for message in part.messages:
            written = messages([message])
            if message["role"] == "assistant":
                weight = weight_of(message)
                flags: dict[str, Any] = {"loss": weight > 0}
                if weight not in (0.0, 1.0):
                    flags["loss_scale"] = weight
                written = [{**row, **flags} for row in written]
            rows += written
        yield {"messages": rows, **_tools(example.tools)}


def pairs(pair: Pair) -> Iterator[JsonRow]:
    """Write a preference as two conversations."""
    asked = messages(pair.prompt)
    better, worse = messages([pair.chosen]), messages([pair.rejected])
    yield {"messages": asked + better, "rejected_messages": asked + worse, **_tools(pair.tools)}


def judged(row: Judged) -> Iterator[JsonRow]:
    """Write a reply with its label."""
    yield {"messages": messages([*row.prompt, row.completion]), "label": row.good, **_tools(row.tools)}


def messages(held: Sequence[Message]) -> list[dict[str, Any]]:
    """Write messages with ms-swift's roles.

    Example:
        >>> call = {"name": "add", "args": {"a": 2}, "id": "1"}
        >>> messages([{"role": "assistant", "content": "", "tool_calls": [call]}])
        [{'role': 'tool_call', 'content': '{"name": "add", "arguments": {"a": 2}}'}]

    """
    rows = []
    for message in held:
        role, calls = message["role"], message.get("tool_calls", [])
        thought = message.get("reasoning")
        text = f"<think>\n{thought}\n</think>\n\n{message['content']}" if thought else message["content"]
        if text or not calls:
            rows.append({"role": "tool_response" if role == "tool" else role, "content": text})
        for call in calls:
            made = json.dumps({"name": call["name"], "arguments": call["args"]}, ensure_ascii=False)
            rows.append({"role": "tool_call", "content": made})
    return rows


def _tools(tools: list[dict[str, Any]]) -> dict[str, str]:
    return {"tools": json.dumps(tools, ensure_ascii=False)} if tools else {}


FORM = Form(sft=sft, pairs=pairs, judged=judged, weighs=True)
