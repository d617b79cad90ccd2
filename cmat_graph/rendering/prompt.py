"""A conversation, ready for a chat template. What is served and what is trained on both come through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cmat_graph.rendering.marks import defused
from cmat_graph.rendering.template import ChatDict, study
from cmat_graph.types import Message


def arrange(
    tokenizer: Any,
    chat: Sequence[ChatDict],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    thinking: bool | None = None,
) -> tuple[list[ChatDict], dict[str, Any]]:
    """Put a conversation so that the template shows all of it and no text in it can speak as another role.

    Args:
        tokenizer: The base's own, with its chat template.
        chat: Dicts with `role` and `content`, as chat templates take them.
        tools: In OpenAI's form.
        thinking: Switch the model's reasoning on or off; None leaves it to its template.

    Returns:
        The messages, and the keywords, for `apply_chat_template`.

    """
    template = study(tokenizer)
    safe = _named(defused(chat, tokenizer))
    own = defused(tools, tokenizer)
    options: dict[str, Any] = {"enable_thinking": thinking} if thinking is not None and template.thinks else {}
    if own and template.tools:
        options[template.tools] = own
    return template.render(safe, own), options


def to_chat_dict(message: Message) -> ChatDict:
    """Turn a recorded message into the form that chat templates take.

    Example:
        >>> to_chat_dict({"role": "user", "content": "Hi"})
        {'role': 'user', 'content': 'Hi'}

    """
    chat: ChatDict = {"role": message["role"], "content": message["content"]}
    if calls := message.get("tool_calls"):
        chat["tool_calls"] = [
            {"type": "function", "id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
            for call in calls
        ]
    if reasoning := message.get("reasoning"):
        chat["reasoning_content"] = reasoning
    if message["role"] == "tool":
        chat["tool_call_id"] = message.get("tool_call_id", "")
    return chat


def _named(chat: list[ChatDict]) -> list[ChatDict]:
    """Name the tool of each result: some templates show it, and not everyone says it twice."""
    names: dict[str, str] = {}
    out = []
    for message in chat:
        for call in message.get("tool_calls") or ():
            names[call["id"]] = call["function"]["name"]
        known = names.get(message.get("tool_call_id", ""))
        out.append({**message, "name": known} if message["role"] == "tool" and known else message)
    return out
