"""What models made of two models have in common: tools for both, and the episode that a call belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from cmat_graph.models.chat.structured import Method, structured_output
from cmat_graph.models.handover.foreign import Seat, translated, without_ours

Tools = Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool]


class PairChatModel(BaseChatModel):
    """A chat model that is made of two: tools are given to whichever answers, when it does."""

    cache: Any = False
    """Replies are cached by the two models, if at all: here one would stand for the other's."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.prepare()  # a validator's errors would come as pydantic's

    def prepare(self) -> None:
        """Check the arguments, once they are there."""

    def pair(self) -> tuple[BaseChatModel, BaseChatModel]:
        """Return the two; the first is the one that is known to serve."""
        raise NotImplementedError

    def bind_tools(
        self, tools: Tools, *, tool_choice: str | dict[str, Any] | bool | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let both call tools.

        Raises:
            NotImplementedError: One of them cannot.

        """
        bound: dict[str, Any] = {"tools": [convert_to_openai_tool(tool) for tool in tools], **kwargs}
        if tool_choice is not None:
            bound["tool_choice"] = tool_choice
        for model in self.pair():
            seated(model, bound)
        return self.bind(**bound)

    def with_structured_output(  # type: ignore[override]
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, method: Method = "json_schema", **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with objects by a schema, whoever answers; each is asked in its own way.

        Args:
            schema: A pydantic class, a `TypedDict` or a JSON schema.
            include_raw: Return `raw`, `parsed` and `parsing_error` instead of raising.
            method: As `TinyAgent.with_structured_output` takes it.
            **kwargs: Bound to each call.

        Raises:
            NotImplementedError: One of them cannot.
            OutputParserException: On use: the reply was cut at its limit, or does not fit the schema.

        """
        if method == "json_schema":
            for model in self.pair():
                model.with_structured_output(schema)
        return structured_output(self, schema, method=method, include_raw=include_raw, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Count as the first does."""
        return self.pair()[0].get_token_ids(text)

    @property
    def context_chars(self) -> int | None:
        """Characters of prompt that both can read; None where neither says."""
        told = [chars for model in self.pair() if (chars := getattr(model, "context_chars", None)) is not None]
        return min(told) if told else None


def seated(model: BaseChatModel, kwargs: Mapping[str, Any], stop: list[str] | None = None) -> Seat:
    """Return a model in whose own form tools and the like are put, and what it is called with."""
    rest = dict(kwargs) if stop is None else {**kwargs, "stop": stop}
    tools, choice = rest.pop("tools", None), rest.pop("tool_choice", None)
    if not tools:
        return translated(model, rest)
    bound = model.bind_tools(tools, **({"tool_choice": choice} if choice is not None else {}))
    # A binding would mix the callbacks of the node that we run in into those that it is called with.
    while isinstance(bound, RunnableBinding):
        rest, bound = {**bound.kwargs, **rest}, bound.bound
    return bound, without_ours(model, rest)


def name_of(model: BaseChatModel) -> str:
    """Return what a model is called: its adapter, or its name."""
    name = getattr(model, "model_name", "") or getattr(model, "model", "") or model._llm_type
    return str(getattr(model, "adapter", "") or name)


def episode_of(config: RunnableConfig, given: Any) -> str:
    """Return the episode that a call belongs to: ours, else LangGraph's thread, else the conversation's first words."""
    told = {**(config.get("configurable") or {}), **(config.get("metadata") or {})}
    known = told.get("cmat_episode") or told.get("thread_id")
    return str(known) if known else "said:" + hashlib.sha256(_first_words(given).encode()).hexdigest()[:32]


def quiet(run_manager: Any) -> RunnableConfig:
    """Keep callbacks to the outer run, or a step would be recorded twice, and what is not sure yet be streamed."""
    return {"callbacks": [], "metadata": dict(getattr(run_manager, "metadata", None) or {})}


def as_chunk(message: BaseMessage) -> AIMessageChunk:
    """Take what a model streams: chunks, or its whole reply where it does not stream."""
    return message if isinstance(message, AIMessageChunk) else AIMessageChunk(**message.model_dump(exclude={"type"}))


def _first_words(given: Any) -> str:
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, str) or not isinstance(given, Sequence):
        return str(given)
    said = [m for m in given if not isinstance(m, BaseMessage) or isinstance(m, HumanMessage)]
    first = said[0] if said else given[0] if given else ""
    return str(first.text) if isinstance(first, BaseMessage) else str(first)
