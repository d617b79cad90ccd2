"""rLLM's canonical SFT rows (`rllm/data/sft_schema.py`): parts of content, and `trainable` on every message.

rLLM takes the flags as they are only when every message bears one, so every message does. A thought is a part of its
own, which the student's renderer writes in its model's way. `rllm sft --train-file` reads the file; rLLM's SFT knows no
pairs and no judged rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cmat_graph.tuning.dataset import Example, WeightedMessage
from cmat_graph.tuning.interchange.forms import Form, JsonRow, weight_of, whole, with_ids
from cmat_graph.tuning.interchange.openai import messages


def sft(example: Example) -> Iterator[JsonRow]:
    """Write a conversation, or one for each target where thoughts are to be learned."""
    for part in whole(example):
        held: Any = with_ids(part.messages)
        rows = [_message(row, message) for row, message in zip(messages(held), held, strict=True)]
        about = {"task_id": example.origin.task_id, "env": example.origin.env, "kind": example.kind}
        yield {"messages": rows, **({"tools": example.tools} if example.tools else {}), **about}


def _message(row: dict[str, Any], message: WeightedMessage) -> dict[str, Any]:
    thought = message.get("reasoning")
    parts = [{"type": "thinking", "thinking": thought}] if thought else []
    text = {"type": "text", "text": message["content"]}
    return {**row, "content": [*parts, text], "trainable": weight_of(message) > 0}


FORM = Form(sft=sft)
