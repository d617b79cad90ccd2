"""What a call may ask of a TinyAgent, put so that any chat model understands it.

Samplers that others do not have are left out. `choices` are asked for in words, and the reply is held to them. A JSON
schema is asked for by the model's own `with_structured_output`; what comes is JSON text, as a TinyAgent's is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda

Seat = tuple[Runnable[LanguageModelInput, AIMessage], dict[str, Any]]
OURS = {"tinyagent", "hand-over", "trial"}
"""Take all of it as it is."""
_OURS_ALONE = {"choices", "thinking", "top_k", "min_p", "repetition_penalty"}


def translated(model: BaseChatModel, kwargs: Mapping[str, Any]) -> Seat:
    """Return what to call in place of a model, and with what."""
    rest = dict(kwargs)
    if model._llm_type in OURS:
        return model, rest
    choices, rest = rest.get("choices"), without_ours(model, rest)
    if choices:
        return RunnableLambda(_asking(model, choices)) | model.bind(**rest) | RunnableLambda(_choosing(choices)), {}
    if (form := wanted_form(rest)) is not None:
        del rest["response_format"]
        rest.pop("strict", None)
        schema = {"title": form.get("name") or "answer", **form["schema"]}
        return _raw(model.with_structured_output(schema, include_raw=True)).bind(**rest) | RunnableLambda(_as_text), {}
    return model, rest


def without_ours(model: BaseChatModel, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a model does not know."""
    ours = model._llm_type in OURS
    return {name: value for name, value in kwargs.items() if ours or name not in _OURS_ALONE}


def wanted_form(kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return OpenAI's `json_schema` that a call asks for, if it asks for one."""
    wanted = kwargs.get("response_format")
    form = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    return dict(form) if isinstance(form, Mapping) and isinstance(form.get("schema"), Mapping) else None


def fits(reply: AIMessage, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a reply is what the call asked for: one of its choices, JSON, calls of tools that there are."""
    if reply.tool_calls or reply.invalid_tool_calls:
        known = {tool["function"]["name"] for tool in kwargs.get("tools") or () if "function" in tool}
        return not reply.invalid_tool_calls and all(not known or call["name"] in known for call in reply.tool_calls)
    text = str(reply.text)
    if choices := kwargs.get("choices"):
        return text in choices
    wanted = kwargs.get("response_format")
    if isinstance(wanted, Mapping) and wanted.get("type") in ("json_schema", "json_object"):
        return _is_json(text)
    return bool(text.strip())


def _raw(shaped: Any) -> Runnable[LanguageModelInput, AIMessage]:
    """Return what answers in a chain that parses: it takes settings, and the chain does not hand them on."""
    steps = getattr(getattr(shaped, "first", None), "steps__", {})
    raw: Runnable[LanguageModelInput, AIMessage] = steps["raw"] if "raw" in steps else shaped.pick("raw")
    return raw


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _asking(model: BaseChatModel, choices: Sequence[str]) -> Callable[[LanguageModelInput], list[BaseMessage]]:
    def ask(given: LanguageModelInput) -> list[BaseMessage]:
        wanted = HumanMessage("Answer with one of these texts, and nothing else:\n" + "\n".join(choices))
        return [*model._convert_input(given).to_messages(), wanted]

    return ask


def _choosing(choices: Sequence[str]) -> Callable[[AIMessage], AIMessage]:
    def choose(reply: AIMessage) -> AIMessage:
        text = str(reply.text).strip()
        for like in (str, str.strip, _bare):
            found = next((choice for choice in choices if like(choice) == like(text)), None)
            if found is not None:
                return reply.model_copy(update={"content": found})
        raise OutputParserException(f"the reply is none of the {len(choices)} choices", llm_output=text)

    return choose


def _bare(text: str) -> str:
    return text.strip(" \t\n\"'`*.").casefold()


def _as_text(reply: AIMessage) -> AIMessage:
    """Take the object out of the tool call that some models answer with."""
    if not reply.tool_calls:
        return reply
    return AIMessage(
        json.dumps(reply.tool_calls[0]["args"], ensure_ascii=False),
        usage_metadata=reply.usage_metadata,
        response_metadata=reply.response_metadata,
    )
