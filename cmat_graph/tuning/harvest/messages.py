"""Recorded messages, compared and hashed by what a model sees of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cmat_graph.tuning.dataset import WeightedMessage
from cmat_graph.types import Step

_SHOWN = ("role", "content", "tool_calls", "tool_call_id")


def shown(message: Mapping[str, Any]) -> WeightedMessage:
    """Return what a prompt shows of a message: no ids of replies, no notes of the graph, no weight."""
    return {name: message[name] for name in _SHOWN if message.get(name) or name in ("role", "content")}  # type: ignore[return-value]


def reply_of(step: Step) -> WeightedMessage:
    """Return what a step's model replied, with its reasoning where it told it."""
    reply: WeightedMessage = {"role": "assistant", "content": step.completion}
    if step.tool_calls:
        reply["tool_calls"] = step.tool_calls
    if reasoning := str(step.told.get("reasoning") or "").strip():
        reply["reasoning"] = reasoning
    return reply


def size_of(message: Mapping[str, Any]) -> int:
    """Count the characters of a message, with its tool calls and its reasoning."""
    size = len(message["content"]) + len(message.get("reasoning", ""))
    return size + (len(text_of_calls(message)) if message.get("tool_calls") else 0)


def text_of_calls(message: Mapping[str, Any]) -> str:
    """Write the tools that a message calls, without the ids of the calls."""
    calls = message.get("tool_calls") or ()
    return json.dumps([[call["name"], call["args"]] for call in calls], sort_keys=True, ensure_ascii=False)


def name_of_action(message: Mapping[str, Any]) -> str:
    """Write a reply so that equal ones are equal texts."""
    text = " ".join(message["content"].split())
    return f"{text} {text_of_calls(message)}" if message.get("tool_calls") else text


def bytes_of(message: Mapping[str, Any]) -> bytes:
    """Write what is seen of a message so that it can be hashed; its reasoning too, where it is to be learned."""
    parts = [message["role"], message["content"], message.get("tool_call_id", ""), message.get("reasoning", "")]
    if message.get("tool_calls"):
        parts.append(text_of_calls(message))
    return "\0".join(parts).encode("utf-8", "replace")


def seen_texts(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Return all that is said in a conversation: also in calls, and in thoughts."""
    for message in messages:
        yield message["content"]
        if message.get("reasoning"):
            yield message["reasoning"]
        for call in message.get("tool_calls") or ():
            yield from _strings(call["args"])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(each)


def texts_of(messages: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """Return what tells one conversation about a task from another: neither rules nor the task's own text."""
    texts = []
    for message in messages:
        if message["role"] != "system":
            texts.append(message["content"].replace(task, "") if task else message["content"])
            if message.get("tool_calls"):
                texts.append(text_of_calls(message))
    return texts
