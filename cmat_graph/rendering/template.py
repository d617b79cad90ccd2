"""What a tokenizer's chat template does with the parts of a conversation, and conversations put so that it can.

Templates differ in what they show, drop and refuse, and do not say so. So a sample conversation is rendered, and what
comes out is looked at: which family's calls the model was taught, whether tools, system messages and results show up.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from cmat_graph.errors import ConfigurationError
from cmat_graph.rendering.formats import FAMILIES, OWN, ChatFormat

ChatDict = dict[str, Any]
"""A message as chat templates take it; the arguments of tool calls are objects, since templates turn them into JSON."""

_TOOL = {
    "type": "function",
    "function": {
        "name": "sample_tool",
        "description": "A sample.",
        "parameters": {
            "type": "object",
            "properties": {"value": {"type": "string", "description": "A value."}},
            "required": ["value"],
        },
    },
}
_ASK = {"role": "user", "content": "sample question"}
_OWN_TOOLS = """You may call tools. Each is described by one line of JSON:
{tools}
To call a tool, answer with
<tool_call>
{{"name": "<the tool's name>", "arguments": <its arguments as a JSON object>}}
</tool_call>"""


def _sample_call(number: int) -> ChatDict:
    function = {"name": "sample_tool", "arguments": {"value": f"sample value {number}"}}
    return {"type": "function", "id": f"sample00{number}", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """What one chat template can do."""

    format: ChatFormat
    """How the model calls tools."""
    tools: str = ""
    """The name under which the template takes tools; empty when it ignores them."""
    calls: int = 0
    """How many tool calls of one turn it shows: none, one, or two for several."""
    results: bool = False
    """Whether it shows the results of tools."""
    refuses_system: bool = False
    drops_system: bool = False
    alternates: bool = False
    """Whether it refuses two turns of one role in a row."""
    thinks: bool = False
    """Whether its reasoning can be switched on and off (`enable_thinking`)."""
    special: frozenset[str] = frozenset()
    """The tokenizer's special tokens."""

    def render(self, messages: Sequence[ChatDict], tools: Sequence[Mapping[str, Any]] = ()) -> list[ChatDict]:
        """Put a conversation so that the template shows all of it.

        A system message that the template drops without a word stays dropped: the model was trained so.
        """
        chat = [dict(message) for message in messages]
        if tools and not self.tools:
            lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
            chat = self._tell(chat, _OWN_TOOLS.format(tools=lines))
        if self.refuses_system:
            rules = "\n\n".join(message["content"] for message in chat if message["role"] == "system")
            chat = [message for message in chat if message["role"] != "system"]
            chat = _to_first_user(chat, rules) if rules else chat
        if self.calls == 0:
            chat = [self._write_calls(message) for message in chat]
        elif self.calls == 1:
            chat = _one_call_a_turn(chat)
        if not self.results:
            chat = _results_as_user(chat)
        if self.format.name.startswith("mistral"):
            chat = [_with_short_ids(message) for message in chat]
        return _merge(chat) if self.alternates else chat

    def _tell(self, chat: list[ChatDict], text: str) -> list[ChatDict]:
        """Add a text to the system message, or to the first user message where system messages do not show."""
        if self.drops_system or self.refuses_system:
            return _to_first_user(chat, text)
        if chat and chat[0]["role"] == "system":
            return [chat[0] | {"content": f"{chat[0]['content']}\n\n{text}"}, *chat[1:]]
        return [{"role": "system", "content": text}, *chat]

    def _write_calls(self, message: ChatDict) -> ChatDict:
        if not message.get("tool_calls"):
            return message
        calls = [self.format.write(**call["function"]) for call in message["tool_calls"]]
        return {"role": message["role"], "content": "\n".join(filter(None, [message["content"], *calls]))}


_studied: WeakKeyDictionary[Any, tuple[Any, ChatTemplate]] = WeakKeyDictionary()


def study(tokenizer: Any) -> ChatTemplate:
    """Find out what a tokenizer's chat template does; remembered for each tokenizer and template."""
    known = _studied.get(tokenizer)
    if known is None or known[0] != tokenizer.chat_template:
        known = _studied[tokenizer] = (tokenizer.chat_template, _study(tokenizer))
    return known[1]


def render_sample(tokenizer: Any) -> str | None:
    """Render a short conversation up to where the model answers; None when there is no template for it."""
    answer = {"role": "assistant", "content": "sample answer"}
    return _render(tokenizer, [_ASK, answer, _ASK], add_generation_prompt=True)


def _study(tokenizer: Any) -> ChatTemplate:
    show = partial(_render, tokenizer)
    call = {"role": "assistant", "content": "", "tool_calls": [_sample_call(1)]}
    two = call | {"tool_calls": [_sample_call(1), _sample_call(2)]}
    result = {"role": "tool", "name": "sample_tool", "tool_call_id": "sample001", "content": "sample result"}
    ruled = show([{"role": "system", "content": "sample rules"}, _ASK])
    tools = next((key for key in ("tools", "xml_tools") if "sample_tool" in (show([_ASK], **{key: [_TOOL]}) or "")), "")
    shown = (show([_ASK], **{tools: [_TOOL]}) or "") + (show([_ASK, call]) or "")
    form = next((family for family in FAMILIES if re.search(family.sign, shown)), OWN)
    calls = sum("sample value 1" in (show([_ASK, turn]) or "") for turn in (call, two))
    return ChatTemplate(
        format=form,
        tools=tools if form is not OWN else "",
        calls=calls if form is not OWN else 0,
        results=form is not OWN and "sample result" in (show([_ASK, call, result]) or ""),
        refuses_system=ruled is None,
        drops_system=ruled is not None and "sample rules" not in ruled,
        alternates=show([_ASK, _ASK]) is None,
        thinks="enable_thinking" in str(tokenizer.chat_template),
        special=frozenset(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        - {"<s>", "</s>"},  # these two may as well be HTML
    )


def _render(tokenizer: Any, messages: Sequence[ChatDict], **template: Any) -> str | None:
    """Render a sample; None when the template refuses it."""
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **template))
    except (TemplateError, TypeError, ValueError, KeyError):
        return None


def _to_first_user(chat: list[ChatDict], text: str) -> list[ChatDict]:
    for at, message in enumerate(chat):
        if message["role"] == "user":
            told = message | {"content": f"{text}\n\n{message['content']}"}
            return [*chat[:at], told, *chat[at + 1 :]]
    return [{"role": "user", "content": text}, *chat]


def _one_call_a_turn(chat: list[ChatDict]) -> list[ChatDict]:
    """Give each call a turn of its own, its result right behind it."""
    results = {message["tool_call_id"]: message for message in chat if message["role"] == "tool"}
    out: list[ChatDict] = []
    placed: set[str] = set()
    for message in chat:
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            out += [message] if message.get("tool_call_id") not in placed else []
            continue
        for number, call in enumerate(calls):
            out.append(message | {"content": message["content"] if number == 0 else "", "tool_calls": [call]})
            if call["id"] in results:
                out.append(results[call["id"]])
                placed.add(call["id"])
    return out


def _results_as_user(chat: list[ChatDict]) -> list[ChatDict]:
    out: list[ChatDict] = []
    for is_result, group in groupby(chat, key=lambda message: message["role"] == "tool"):
        if is_result:
            results = [f"<tool_response>\n{message['content']}\n</tool_response>" for message in group]
            out.append({"role": "user", "content": "\n".join(results)})
        else:
            out += group
    return out


def _with_short_ids(message: ChatDict) -> ChatDict:
    """Make ids nine letters and digits long: Mistral's templates refuse others."""
    if message.get("tool_calls"):
        return message | {"tool_calls": [call | {"id": _short(call["id"])} for call in message["tool_calls"]]}
    return message | {"tool_call_id": _short(message["tool_call_id"])} if "tool_call_id" in message else message


def _short(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9]{9}", name) else hashlib.sha256(name.encode()).hexdigest()[:9]


def _merge(chat: list[ChatDict]) -> list[ChatDict]:
    """Join turns of one role that follow each other."""
    out: list[ChatDict] = []
    for message in chat:
        plain = message["role"] in ("user", "assistant") and not message.get("tool_calls")
        if plain and out and out[-1]["role"] == message["role"] and not out[-1].get("tool_calls"):
            out[-1] = out[-1] | {"content": f"{out[-1]['content']}\n\n{message['content']}"}
        else:
            out.append(message)
    return out


def encode(engine: Any, messages: Sequence[ChatDict], **template: Any) -> list[int]:
    """Encode a conversation with an engine.

    Raises:
        ConfigurationError: The model's chat template refuses it.

    """
    try:
        return list(engine.encode(messages, **template))
    except TemplateError as exc:
        raise ConfigurationError(
            f"the chat template of {engine.base} refuses these messages: {exc}; change their roles or order"
        ) from exc
