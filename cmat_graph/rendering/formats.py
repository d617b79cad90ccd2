"""How models of different families write a tool call in their text, and how such text is read back.

Which family a model belongs to is for `template` to find out; `parsing` cuts a reply into its parts.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

MAX_CALLS = 64
"""Calls read from one reply; text beyond them stays text."""
MAX_GARBLED = 2_000
"""Characters kept of a call that is none."""
_HEAD = re.compile(r"\s*(?:([\w.-]+)\s*(?:\[CALL_ID\]\w*\s*)?(?:\[ARGS\]\s*)?)?")
_GAP = re.compile(r"[\s;,]*(?=\{)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """How one family of models writes a tool call."""

    name: str
    open: str
    """What stands before calls."""
    close: str = ""
    """What stands after each call; empty when nothing does."""
    before: str
    """The text of a call up to its arguments; NAME is the tool's name."""
    after: str
    """The text of a call after its arguments."""
    sign: str
    """A regular expression that finds a call of `sample_tool`, or the request for such calls, in a rendered chat."""

    def frame(self, name: str) -> tuple[str, str]:
        """Return what stands before and after the arguments of a tool's call."""
        return self.before.replace("NAME", json.dumps(name)[1:-1]), self.after

    def write(self, name: str, arguments: Any) -> str:
        """Write a call as the model would.

        Example:
            >>> LLAMA3.write("add", {"a": 1})
            '{"name": "add", "parameters": {"a": 1}}'

        """
        before, after = self.frame(name)
        return before + json.dumps(arguments, ensure_ascii=False) + after

    def read(self, text: str) -> tuple[list[ToolCall], list[InvalidToolCall], str]:
        """Read the calls in a text.

        Returns:
            The calls, those that are no JSON or no call, and the text around them.

        """
        calls: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        around: list[str] = []
        at = 0
        while (start := text.find(self.open, at)) >= 0 and len(calls) + len(invalid) < MAX_CALLS:
            around.append(text[at:start].strip())
            body = start + len(self.open)
            try:
                name, values, at = _read_values(text, body)
                calls += [_to_call(value, name) for value in values]
            except (ValueError, RecursionError) as exc:
                at = self._end_of(text, body)
                invalid.append(_to_invalid(text[start:at], exc))
            at = self._skip_close(text, at)
        around.append(text[at:].strip())
        return calls, invalid, "\n".join(filter(None, around))

    def _end_of(self, text: str, at: int) -> int:
        ends = (text.find(mark, at) for mark in (self.open, self.close) if mark)
        return min((end for end in ends if end >= 0), default=len(text))

    def _skip_close(self, text: str, at: int) -> int:
        """Go past the closing mark, and past braces too many before it."""
        if self.close:
            closed = re.compile(r"[\s}\]]*" + re.escape(self.close)).match(text, at)
            return closed.end() if closed else at
        return at


HERMES = ChatFormat(
    name="hermes",
    open="<tool_call>",
    close="</tool_call>",
    before='<tool_call>\n{"name": "NAME", "arguments": ',
    after="}\n</tool_call>",
    sign=r"<tool_call>\s*\{",
)
"""Hermes, Qwen 2.5 and 3, SmolLM3 and others (Nous Research's Hermes function calling)."""
LLAMA3 = ChatFormat(
    name="llama3",
    open="<|python_tag|>",
    before='{"name": "NAME", "parameters": ',
    after="}",
    sign=r'\{"name": "sample_tool", "parameters": ',
)
"""Llama 3.1 and 3.2: the whole reply is a call; a special token may stand before it."""
MISTRAL = ChatFormat(
    name="mistral",
    open="[TOOL_CALLS]",
    before='[TOOL_CALLS][{"name": "NAME", "arguments": ',
    after="}]",
    sign=r"\[TOOL_CALLS\]\s*\[\s*\{",
)
"""Mistral up to its tokenizer v7."""
MISTRAL_ARGS = replace(
    MISTRAL, name="mistral-args", before="[TOOL_CALLS]NAME[ARGS]", after="", sign=r"\[TOOL_CALLS\]\s*sample_tool"
)
"""Mistral since its tokenizer v11."""
OWN = replace(HERMES, name="own")
"""For models whose template knows no tools: they are described to the model in words, and called as in Hermes."""
FAMILIES = (HERMES, MISTRAL_ARGS, MISTRAL, LLAMA3)


def read_bare(text: str, known: frozenset[str]) -> list[ToolCall]:
    """Read a reply that is nothing but calls, without any mark; empty when it is anything else.

    Llama 3 calls so, and small models forget their marks; only known tools count, since other JSON is an answer.
    """
    try:
        _, values, end = _read_values(text, 0)
        calls = [_to_call(value, "") for value in values]
    except (ValueError, RecursionError):
        return []
    return calls if not text[end:].strip() and all(call["name"] in known for call in calls) else []


def _read_values(text: str, at: int) -> tuple[str, list[Any], int]:
    """Read `name[ARGS]` if it stands there, then JSON values; return where they end."""
    head = _HEAD.match(text, at)
    assert head is not None
    name = head[1] or ""
    value, at = _DECODER.raw_decode(text, head.end())
    values = [value] if name or not isinstance(value, list) else value
    while not name and (gap := _GAP.match(text, at)) and len(values) < MAX_CALLS:
        value, at = _DECODER.raw_decode(text, gap.end())
        values.append(value)
    return name, values, at


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)  # small models leave newlines in strings as they are


def _to_call(value: Any, name: str) -> ToolCall:
    """Take a JSON value for a call.

    Raises:
        ValueError: It is none.

    """
    if not name:
        if isinstance(value, dict) and isinstance(value.get("function"), dict):
            value = value["function"]
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError("a call is a JSON object with a name and arguments")
        name, value = value["name"], value.get("arguments", value.get("parameters", {}))
    if isinstance(value, str):
        value = _DECODER.decode(value)
    if not isinstance(value, dict):
        raise ValueError(f"the arguments of {name} are no JSON object")
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair fails here, as a ValueError
    return tool_call(name=name, args=value, id=new_id())


def _to_invalid(text: str, reason: Exception) -> InvalidToolCall:
    """Keep what should have been a call, with its mark: nobody shall take its beginning for the arguments."""
    text = text.strip()[:MAX_GARBLED]
    named = re.search(r'"name"\s*:\s*"([^"\\]*)"|([\w.-]+)\[ARGS\]', text)
    error = "nested too deep" if isinstance(reason, RecursionError) else str(reason)
    return invalid_tool_call(
        name=(named[1] or named[2]) if named else None, args=text, id=new_id(), error=f"not a call: {error}"
    )


def new_id() -> str:
    """Return a fresh id of a call: nine letters and digits, as Mistral's templates demand."""
    return uuid.uuid4().hex[:9]
