"""LangChain's messages as chat dicts, and a model's reply as one of LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ChatMessage, ToolMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.chat.parsing import Parsed
from cmat_graph.models.decoding.rows import Reply
from cmat_graph.rendering.template import ChatDict

_ROLES = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool", "function": "tool"}
_SAID_ELSEWHERE = {
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "reasoning", "thinking"
}  # fmt: skip


def to_chat(messages: Sequence[BaseMessage]) -> list[ChatDict]:
    """Turn messages into chat dicts.

    Raises:
        ConfigurationError: A message holds what a text model cannot read, such as an image.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> to_chat([HumanMessage("Hi")])
        [{'role': 'user', 'content': 'Hi'}]

    """
    return [_to_dict(message) for message in messages]


def to_message(parsed: Parsed, reply: Reply, metadata: dict[str, Any]) -> AIMessage:
    """Make the message of a whole reply."""
    return AIMessage(
        parsed.content,
        tool_calls=parsed.calls,
        invalid_tool_calls=parsed.invalid,
        additional_kwargs=_reasoning(parsed),
        usage_metadata=_usage(reply),
        response_metadata=metadata,
    )


def to_chunk(parsed: Parsed) -> AIMessageChunk:
    """Make the message of a piece of a reply."""
    called = [(call["name"], json.dumps(call["args"], ensure_ascii=False), call["id"]) for call in parsed.calls]
    garbled = [(call["name"], call["args"], call["id"]) for call in parsed.invalid]
    return AIMessageChunk(
        content=parsed.content,
        additional_kwargs=_reasoning(parsed),
        tool_call_chunks=[
            tool_call_chunk(name=name, args=arguments, id=id_, index=index)
            for index, (name, arguments, id_) in enumerate([*called, *garbled])
        ],
    )


def to_last_chunk(parsed: Parsed, reply: Reply, metadata: dict[str, Any]) -> AIMessageChunk:
    """Make the last message of a reply in pieces: with what it took."""
    update = {"usage_metadata": _usage(reply), "response_metadata": metadata, "chunk_position": "last"}
    return to_chunk(parsed).model_copy(update=update)


def _reasoning(parsed: Parsed) -> dict[str, Any]:
    return {"reasoning_content": parsed.reasoning} if parsed.reasoning else {}


def _usage(reply: Reply) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        total_tokens=reply.input_tokens + reply.output_tokens,
        input_token_details=InputTokenDetails(cache_read=reply.cached_tokens),
    )


def _to_dict(message: BaseMessage) -> ChatDict:
    role = message.role if isinstance(message, ChatMessage) else _ROLES.get(message.type, "")
    if not role:
        raise ConfigurationError(f"a message of type {message.type!r} cannot be told to a model; leave it out")
    chat: ChatDict = {"role": "system" if role == "developer" else role, "content": _to_text(message)}
    if isinstance(message, ToolMessage):
        chat |= {"tool_call_id": message.tool_call_id} | ({"name": message.name} if message.name else {})
    if isinstance(message, AIMessage):
        called = [(call["name"], call["args"], call["id"]) for call in message.tool_calls]
        garbled = [(call["name"] or "unknown", call["args"] or "", call["id"]) for call in message.invalid_tool_calls]
        if called or garbled:
            chat["tool_calls"] = [
                {"type": "function", "id": id_ or "", "function": {"name": name, "arguments": arguments}}
                for name, arguments, id_ in [*called, *garbled]
            ]
        if reasoning := message.additional_kwargs.get("reasoning_content"):
            chat["reasoning_content"] = reasoning
    return chat


def _to_text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = [_to_part(block, message.type) for block in message.content]
    return ("" if message.type == "ai" else "\n").join(filter(None, parts))  # streamed AI texts are cut anywhere


def _to_part(block: str | dict[Any, Any], type_: str) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind in ("text", "text-plain"):
        return str(block.get("text", ""))
    if type_ == "ai" and kind in _SAID_ELSEWHERE:
        return ""
    if type_ == "tool" and kind == "json":
        return json.dumps(block.get("json"), ensure_ascii=False)
    raise ConfigurationError(f"a text model cannot read a block of type {kind!r}; give it text only")
