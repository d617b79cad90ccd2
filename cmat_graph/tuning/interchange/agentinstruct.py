"""AgentInstruct's form: ShareGPT turns that say whether they carry loss. `cmat-graph traces import` reads it back."""

from __future__ import annotations

from collections.abc import Iterator

from cmat_graph.tuning.dataset import Example
from cmat_graph.tuning.interchange.forms import Form, JsonRow, UnfitError, weight_of

_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}


def sft(example: Example) -> Iterator[JsonRow]:
    """Write a conversation; `loss` is null where nobody's turn is to be learned, as in the original."""
    targets = example.targets
    if not targets:
        raise UnfitError("no target")
    turns = []
    for message in example.messages[: targets[-1] + 1]:
        if message["role"] not in _SPEAKERS or message.get("tool_calls"):
            raise UnfitError("tool calls, which the form has no turn for")
        loss = weight_of(message) > 0 if message["role"] == "assistant" else None
        turns.append({"from": _SPEAKERS[message["role"]], "loss": loss, "value": message["content"]})
    yield {"id": example.origin.task_id, "conversations": turns}


FORM = Form(sft=sft)
