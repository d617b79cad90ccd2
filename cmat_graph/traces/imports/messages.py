"""Messages as LangChain, OpenAI, Anthropic and ShareGPT write them, read into the project's own form.

Data only: nothing that is read here is ever revived into objects (LangChain's loader is how CVE-2025-68664 came in).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cmat_graph.types import Message, ToolCall

ROLES = {
    "human": "user",
    "user": "user",
    "HumanMessage": "user",
    "ai": "assistant",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "developer": "system",
    "SystemMessage": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ToolMessage": "tool",
}
"""Who speaks, in each dialect."""
_TEXT = ("text", "input_text", "output_text")
_THOUGHT = ("thinking", "reasoning")
_ANSWERS = ("answer", "response", "result", "completion")
"""Names that a function gives what its model said."""


def read_messages(raw: Any) -> list[Message]:
    """Read a conversation: a text, one message, a list of them, or LangChain's list of lists (the first is read)."""
    if isinstance(raw, list) and raw and isinstance(raw[0], list) and raw[0] and not isinstance(raw[0][0], str):
        raw = raw[0]
    each = raw if isinstance(raw, list) and not _is_pair(raw) else [raw]
    messages: list[Message] = []
    for one in each:
        for message in _read(one):
            if _is_item(one) and messages and messages[-1]["role"] == "assistant":  # one answer of the Responses API
                messages[-1].setdefault("tool_calls", []).extend(message.get("tool_calls", []))
            else:
                messages.append(message)
    return messages


def read_reply(raw: Any) -> Message | None:
    """Read what a model answered, whichever way the answer is wrapped; None when there is no answer in it."""
    if isinstance(raw, list):
        said = [message for message in read_messages(raw) if message["role"] == "assistant"]
        return said[-1] if said else (read_reply(raw[-1]) if raw and isinstance(raw[-1], Mapping) else None)
    if isinstance(raw, str):
        return {"role": "assistant", "content": raw}
    if not isinstance(raw, Mapping):
        return None
    if generations := raw.get("generations"):  # LangChain's `LLMResult`
        first = generations[0][0] if isinstance(generations[0], list) and generations[0] else generations[0]
        return read_reply(first)
    if choices := raw.get("choices"):
        return read_reply(choices[0])
    for wrapping in ("message", "messages", "output"):
        if raw.get(wrapping):
            return read_reply(raw[wrapping])
    if "lc" in raw or "content" in raw or raw.get("tool_calls"):
        read = read_messages([{"role": "assistant", **raw}])
        return read[0] if read and read[0]["role"] == "assistant" else None
    text = raw.get("text")
    return {"role": "assistant", "content": text} if isinstance(text, str) else None


def bare_reply(raw: Any) -> Message | None:
    """Take an answer that is wrapped in nothing known as what the model said: JSON that it was asked for, mostly.

    Example:
        >>> bare_reply({"city": "Rome"})["content"]
        '{"city": "Rome"}'

    """
    if raw in (None, "", {}, []):
        return None
    if isinstance(raw, Mapping) and len(raw) == 1 and isinstance(said := raw.get(next(iter(raw))), str):
        raw = said if next(iter(raw)) in _ANSWERS else raw
    return {"role": "assistant", "content": raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)}


def read_tools(raw: Any) -> list[dict[str, Any]]:
    """Read tool definitions into OpenAI's form.

    Example:
        >>> read_tools([{"name": "add", "input_schema": {"type": "object"}}])[0]["function"]["parameters"]
        {'type': 'object'}

    """
    tools = []
    for tool in raw if isinstance(raw, list) else ():
        tool = parsed(tool)
        inner = tool.get("function") if isinstance(tool, Mapping) else None
        told = inner if isinstance(inner, Mapping) else tool
        if isinstance(told, Mapping) and told.get("name"):
            schema = parsed(told.get("parameters") or told.get("input_schema") or told.get("args_schema"))
            function: dict[str, Any] = {"name": str(told["name"]), "description": str(told.get("description") or "")}
            function["parameters"] = schema if isinstance(schema, Mapping) else {"type": "object", "properties": {}}
            tools.append({"type": "function", "function": function})
    return tools


def parsed(value: Any) -> Any:
    """Return what a JSON text holds; anything else as it is. Exports often write objects as text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def last_user(messages: Iterable[Message]) -> str:
    """Return what the user asked last; empty when nobody did."""
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return asked[-1] if asked else ""


def _read(raw: Any) -> Iterator[Message]:
    if isinstance(raw, str):
        yield {"role": "user", "content": raw}
    elif _is_pair(raw):
        yield {"role": ROLES.get(raw[0], "user"), "content": raw[1]}
    elif isinstance(raw, Mapping):
        yield from _read_dict(raw)


def _read_dict(raw: Mapping[str, Any]) -> Iterator[Message]:
    kind = str(raw.get("role") or raw.get("from") or "")
    if "kwargs" in raw and "lc" in raw:  # LangChain's `dumpd`
        kind, raw = str((raw.get("id") or [""])[-1]), raw["kwargs"]
    elif isinstance(raw.get("data"), Mapping):  # its `messages_to_dict`
        kind, raw = str(raw.get("type", "")), raw["data"]
    if raw.get("type") == "function_call":
        yield {"role": "assistant", "content": "", "tool_calls": [_call(raw)]}
        return
    if raw.get("type") == "function_call_output":
        yield {"role": "tool", "content": _text(raw.get("output")), "tool_call_id": str(raw.get("call_id") or "")}
        return
    role = ROLES.get(kind) or ROLES.get(str(raw.get("type", "")))
    if role is None:
        return
    content = raw.get("content", raw.get("value"))
    blocks = [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
    for block in blocks:
        if block.get("type") == "tool_result":
            yield _result(block.get("content"), block.get("tool_use_id"), error=bool(block.get("is_error")))
    text = _text(content)
    if role == "tool":
        yield _result(content, raw.get("tool_call_id"), error=raw.get("status") == "error")
    elif role == "assistant":
        yield _answer(raw, text, blocks)
    elif text or not blocks:
        yield {"role": role, "content": text}


def _answer(raw: Mapping[str, Any], text: str, blocks: list[Mapping[str, Any]]) -> Message:
    more = raw.get("additional_kwargs") or {}
    made = raw.get("tool_calls") or more.get("tool_calls") or [b for b in blocks if b.get("type") == "tool_use"]
    message: Message = {"role": "assistant", "content": text}
    broken = [str(call.get("name") or "a tool") for call in raw.get("invalid_tool_calls") or ()]
    calls = []
    for call in (parsed(each) for each in made):
        read = _call(call)
        if isinstance(read["args"], dict):
            calls.append(read)
        else:
            broken.append(read["name"])
    if calls:
        message["tool_calls"] = calls
    if broken:
        message["garbled"] = broken[0]
    thought = raw.get("reasoning_content") or raw.get("reasoning") or more.get("reasoning_content")
    thought = thought or "".join(str(b.get(k) or "") for b in blocks for k in _THOUGHT if b.get("type") == k)
    if isinstance(thought, str) and thought:
        message["reasoning"] = thought
    return message


def _call(raw: Any) -> ToolCall:
    inner = raw.get("function") if isinstance(raw.get("function"), Mapping) else raw
    args: Any = next((inner[name] for name in ("args", "arguments", "input") if inner.get(name) is not None), {})
    return {
        "name": str(inner.get("name") or ""),
        "args": parsed(args) if args != "" else {},
        "id": str(raw.get("id") or raw.get("call_id") or ""),
    }


def _result(content: Any, call: Any, *, error: bool) -> Message:
    message: Message = {"role": "tool", "content": _text(content), "tool_call_id": str(call or "")}
    if error:
        message["error"] = True
    return message


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(
            part if isinstance(part, str) else str(part.get("text") or "")
            for part in content
            if isinstance(part, str) or (isinstance(part, Mapping) and part.get("type", "text") in _TEXT)
        )
    if content is None or isinstance(content, str):
        return content or ""
    return json.dumps(content, ensure_ascii=False)


def _is_pair(raw: Any) -> bool:
    return isinstance(raw, list) and len(raw) == 2 and all(isinstance(part, str) for part in raw) and raw[0] in ROLES


def _is_item(raw: Any) -> bool:
    return isinstance(raw, Mapping) and raw.get("type") == "function_call"
