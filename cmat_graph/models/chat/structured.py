"""`with_structured_output`: a reply as an object by a schema, or an exception that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel

from cmat_graph.errors import ConfigurationError

Method = Literal["json_schema", "function_calling", "json_mode"]
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
"""What constrained decoding knows how to write."""
_VALUES = {"enum", "const", "default", "examples"}


def structured_output(
    model: BaseChatModel, schema: Any, *, method: Method = "json_schema", include_raw: bool = False, **kwargs: Any
) -> Runnable[Any, Any]:
    """Build what answers with objects by a schema. See `TinyAgent.with_structured_output`."""
    told = kwargs | {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": schema}}
    if method == "function_calling":
        tool = convert_to_openai_tool(schema)
        tool = _loosen(tool) if _checks(schema) else tool
        bound: Runnable[Any, Any] = model.bind_tools([tool], tool_choice=tool["function"]["name"], **told)
    elif method == "json_schema":
        form = {"name": getattr(schema, "__name__", "answer"), "schema": _to_json_schema(schema), "strict": True}
        bound = model.bind(response_format={"type": "json_schema", "json_schema": form}, **told)
    elif method == "json_mode":
        bound = model.bind(response_format={"type": "json_object"}, **told)
    else:
        raise ConfigurationError(f"no method {method!r}; take json_schema, function_calling or json_mode")
    parse = RunnableLambda(reader(schema))
    if not include_raw:
        return bound | parse
    read = RunnablePassthrough.assign(parsed=itemgetter("raw") | parse, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap({"raw": bound}) | read.with_fallbacks([failed], exception_key="parsing_error")


def reader(schema: Any) -> Callable[[AIMessage], Any]:
    """Return what reads a message as an object: of the class, when the schema is a pydantic one, else a dict."""

    def read(message: AIMessage) -> Any:
        text = str(message.text)
        try:
            value = message.tool_calls[0]["args"] if message.tool_calls else json.loads(text)
            return _to_class(schema, value)
        except ValueError as exc:  # what json, and both versions of pydantic, raise
            reason = f"does not fit: {exc}"
            if message.response_metadata.get("finish_reason") == "length":
                reason = "was cut at its limit of tokens before it was complete; raise max_tokens or shorten the prompt"
            raise OutputParserException(f"the reply {reason}", llm_output=text) from exc

    return read


def _to_class(schema: Any, value: Any) -> Any:
    if not isinstance(schema, type):
        return value
    if issubclass(schema, BaseModel):
        return schema.model_validate(value)
    return schema.parse_obj(value) if hasattr(schema, "parse_obj") else value  # pydantic.v1, or a TypedDict


def _checks(schema: Any) -> bool:
    """Tell whether a schema is a class that looks at values itself: pydantic's, of either version."""
    return isinstance(schema, type) and hasattr(schema, "parse_obj")


def _loosen(schema: Any) -> Any:
    """Leave out what constrained decoding cannot enforce and a class checks afterwards: `set[int]`, `bytes`."""
    if isinstance(schema, list):
        return [_loosen(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value if key in _VALUES else _loosen(value) for key, value in schema.items()}
    if isinstance(kept.get("uniqueItems"), bool):
        del kept["uniqueItems"]
    if isinstance(kept.get("format"), str) and kept["format"] not in _FORMATS:
        del kept["format"]
    return kept


def _to_json_schema(schema: Any) -> dict[str, Any]:
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        loose: dict[str, Any] = _loosen(schema.model_json_schema())
        return loose
    if isinstance(schema, dict) and not {"function", "parameters", "input_schema"} & set(schema):
        return schema
    return convert_to_json_schema(schema)
