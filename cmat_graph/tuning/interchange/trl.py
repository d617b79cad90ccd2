"""TRL's own columns, for `SFTTrainer`, `DPOTrainer` and `KTOTrainer` (conversational; `load_dataset("json", ...)`).

`prompt` and `completion`: the loss is on the completion, which is one target. Tools are JSON text, which TRL parses,
since a table cannot hold two tools of different shapes in one column; for the same reason calls whose arguments differ
are kept apart by `datasets`' own JSON type (5.x). Thoughts are `reasoning_content`, as chat templates read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from cmat_graph.rendering.prompt import to_chat_dict
from cmat_graph.tuning.dataset import Example, Judged, Pair
from cmat_graph.tuning.interchange.forms import Form, JsonRow, one_each
from cmat_graph.types import Message


def sft(example: Example) -> Iterator[JsonRow]:
    """Write a row for each target."""
    for row in one_each(example):
        *prompt, target = row.messages
        yield {"prompt": chats(prompt), "completion": chats([target]), **_tools(example.tools)}


def pairs(pair: Pair) -> Iterator[JsonRow]:
    """Write a preference."""
    told = {"prompt": chats(pair.prompt), "chosen": chats([pair.chosen]), "rejected": chats([pair.rejected])}
    yield {**told, **_tools(pair.tools)}


def judged(row: Judged) -> Iterator[JsonRow]:
    """Write a reply with its label."""
    yield {
        "prompt": chats(row.prompt),
        "completion": chats([row.completion]),
        "label": row.good,
        **_tools(row.tools),
    }


def chats(held: Sequence[Message]) -> list[dict[str, Any]]:
    """Write messages as chat templates take them."""
    return [to_chat_dict(message) for message in held]


def _tools(tools: list[dict[str, Any]]) -> dict[str, str]:
    return {"tools": json.dumps(tools, ensure_ascii=False)} if tools else {}


FORM = Form(sft=sft, pairs=pairs, judged=judged)
