"""`TinyAgent`: a LangChain chat model over local weights, the base alone or with an adapter."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation, model_validator

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError, EngineBusyError, UnsupportedAdapterError
from cmat_graph.models.chat.calls import PROVIDER, Answerer, Call, Wanted, prepare, to_sampling
from cmat_graph.models.chat.deadline import deadline, in_thread, on_loop
from cmat_graph.models.chat.messages import to_chat, to_chunk, to_last_chunk, to_message
from cmat_graph.models.chat.parsing import parse_reply
from cmat_graph.models.chat.structured import Method, structured_output
from cmat_graph.models.chat.trained import warn_of_template, whole_model
from cmat_graph.models.decoding.rows import ChatEngine, Pending, Reply
from cmat_graph.rendering.prompt import to_chat_dict
from cmat_graph.rendering.template import ChatDict
from cmat_graph.types import Message

REPLY_TOKENS = 128
"""Tokens of the window kept for the reply."""
_WANTED = {"tools", "tool_choice", "response_format", "choices", "thinking"}
_SAMPLED = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_IGNORED = {"stream", "strict", "parallel_tool_calls", "ls_structured_output_format"}
"""What callers of other models pass along, and makes no difference here."""


class TinyAgent(BaseChatModel):
    """A small local model as a chat model. Build it with `TinyAgent.load`.

    All instances over one base share its weights, and calls that arrive together are answered in one batch, whatever
    their adapters; so async calls, threads and `batch` all help. Each call may name its adapter: `model="checker"`.

    Beside the fields, a call takes `tools`, `tool_choice`, `response_format` and `stop` as OpenAI's does, `choices`
    (the reply is one of these texts) and `logprobs`.

    Example:
        >>> model = TinyAgent.load("nano")  # doctest: +SKIP
        >>> model.invoke("Is 7 prime?", choices=["yes", "no"]).text  # doctest: +SKIP
        'yes'

    """

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    model_name: str = Field(default="nano", alias="model")
    """The base: `nano`, a folder or a hub id."""
    engine: SkipValidation[ChatEngine] = Field(default=None, exclude=True, repr=False)  # type: ignore[assignment]
    """What answers; by default the process's engine of this base."""
    adapter: str = ""
    """Name of the adapter that answers (`node/name`, or a node, looked up anew at each call); empty for the base."""
    max_tokens: int = 256
    """A reply that is cut here says so (`finish_reason` is `length`), and so does one that ends because it only repeats
    itself."""
    temperature: float = 0.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    """The same seed repeats a reply, whoever else is asking."""
    stop: str | list[str] | None = Field(default=None, alias="stop_sequences")
    """A reply ends before the first of these."""
    thinking: bool | None = None
    """Switch a thinking model's reasoning on or off; None leaves it to the model."""
    timeout: float | None = None
    """Seconds after which a call is given up with a `TimeoutError`."""
    max_retries: int = 0
    """Taken because other chat models take it; the engine itself retries what may succeed."""
    streaming: bool = False

    _registry: AdapterRegistry = PrivateAttr(default_factory=AdapterRegistry)
    _card: AdapterCard | None = PrivateAttr(default=None)
    _key: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _find_engine(self) -> TinyAgent:
        to_sampling({name: getattr(self, name) for name in _SAMPLED}, stop=self.stop)
        if self.engine is None:
            from cmat_graph.models.engine import shared_engine

            self.engine = shared_engine(self.model_name)
        elif "model_name" not in self.model_fields_set:
            self.model_name = self.engine.base
        return self

    @classmethod
    def load(
        cls,
        source: AdapterCard | str | os.PathLike[str] = "nano",
        *,
        adapter: AdapterCard | str | None = None,
        adapters: str | os.PathLike[str] | AdapterRegistry = "adapters",
        dtype: str | None = None,
        preset: bool = False,
        **settings: Any,
    ) -> TinyAgent:
        """Load a base, and an adapter if one is named.

        Args:
            source: An adapter's card (its base is loaded with it), or a base: `nano`, a folder, a hub id.
            adapter: A card, or the name of an adapter in `adapters`: `node/name`, or a node for its promoted or else
                newest one as it is now. A later promotion changes nothing here; `model="node"` in a call looks anew.
            adapters: The adapter registry, or its folder.
            dtype: A torch dtype name.
            preset: Check the base's chat template, and take what its makers recommend (`chat.presets`) for whatever
                `settings` leaves open.
            **settings: Any field, such as `temperature`.

        Raises:
            ModelNotFoundError: No such base.
            AdapterNotFoundError: No such adapter.
            AdapterMismatchError: The adapter was trained on another base.
            ConfigurationError: There is no preset for this base, or its chat template is not the expected one.

        Example:
            >>> model = TinyAgent.load("nano")  # doctest: +SKIP

        """
        from cmat_graph.models.engine import shared_engine

        known = set(cls.model_fields) | {field.alias for field in cls.model_fields.values()}
        if unknown := set(settings) - known:
            raise ConfigurationError(f"a TinyAgent has no {', '.join(sorted(unknown))}; see its fields")
        registry = adapters if isinstance(adapters, AdapterRegistry) else AdapterRegistry(adapters)
        if isinstance(source, AdapterCard):
            source, adapter = source.base, source
        card = registry.get(adapter) if isinstance(adapter, str) else adapter
        name = os.fspath(source)
        engine = shared_engine(whole_model(card, name) if card is not None and card.is_full else name, dtype=dtype)
        if preset:
            from cmat_graph.models.chat.presets import preset_of

            settings = preset_of(name).apply(engine.tokenizer) | settings
        model = cls(model=name, engine=engine, adapter=card.id if card is not None else "", **settings)
        model._registry = registry
        if card is not None:
            warn_of_template(card, engine.tokenizer)
            # under its key: other registries may have adapters of the same name
            model._card = card
            model._key = "" if card.is_full else engine.load_adapter(card, name=card.key)
        return model

    @property
    def context_chars(self) -> int:
        """About how many characters of prompt leave room for a reply, at two characters a token."""
        tokens = min(self.engine.window, int(self.engine.tokenizer.model_max_length))
        return max(0, tokens - REPLY_TOKENS) * 2

    def get_token_ids(self, text: str) -> list[int]:
        """Encode a text; so `token_counter=model` counts with the model's own tokenizer."""
        return list(self.engine.tokenizer.encode(text, add_special_tokens=False))

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Count what a prompt of these messages takes, with the model's own chat template."""
        if not messages:
            return 0
        wanted = Wanted(tools=[convert_to_openai_tool(tool) for tool in tools or ()], thinking=self.thinking)
        return len(prepare(self.engine, to_chat(messages), wanted).prompt)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools.

        Args:
            tools: Functions, tools, pydantic classes or OpenAI's dicts.
            tool_choice: `auto`; `required` or `any`: the reply is one call of any of them; a tool's name: of that one;
                `none`. A demanded call is valid whatever the model is: its decoding is constrained.
            **kwargs: Bound as well.

        """
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def with_structured_output(  # type: ignore[override]
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, method: Method = "json_schema", **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with objects by a schema.

        The prompt stays as it is: say in it what the fields mean, or take `function_calling`, which shows the schema.

        Args:
            schema: A pydantic class, a `TypedDict` or a JSON schema.
            include_raw: Return `raw`, `parsed` and `parsing_error` instead of raising.
            method: `json_schema` lets the model write nothing else, `function_calling` demands a call of a tool of this
                schema, `json_mode` lets it write any JSON object.
            **kwargs: Bound to each call.

        Raises:
            OutputParserException: On use: the reply was cut at its limit, or is not what a validator accepts.

        """
        return structured_output(self, schema, method=method, include_raw=include_raw, **kwargs)

    def begin(self, messages: Sequence[Message], **settings: Any) -> Callable[[], AIMessage]:
        """Queue a call, and return what waits for its reply; no callbacks see it.

        Calls that are begun before the first one is waited for are answered together, those of other adapters on the
        same base too: a whole question set goes to the engine at once.

        Args:
            messages: The conversation, as records.
            **settings: What a call takes, such as `seed`.

        Raises:
            PromptTooLongError: The prompt leaves no room for a reply.
            ConfigurationError: The settings cannot work together.

        Example:
            >>> waiting = [model.begin(chat) for chat in chats]  # doctest: +SKIP
            >>> replies = [wait() for wait in waiting]  # doctest: +SKIP

        """
        call = self._prepared([to_chat_dict(message) for message in messages], None, settings)
        pending = self._submit(call)

        def wait() -> AIMessage:
            with deadline(pending, self.timeout, in_thread):
                return self._message(call, pending.result())

        return wait

    # -- answering ----------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, kwargs)
        pending = self._submit(call)
        with deadline(pending, self.timeout, in_thread):
            return self._result(call, pending.result())

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = await asyncio.to_thread(self._call, messages, stop, kwargs)
        pending = await self._asubmit(call)
        with deadline(pending, self.timeout, on_loop):
            return self._result(call, await pending.aresult())

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        parser = call.parser()

        def tell(message: AIMessageChunk) -> ChatGenerationChunk:
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                run_manager.on_llm_new_token(str(message.text), chunk=chunk)
            return chunk

        pending = self._submit(call, stream=True)
        with deadline(pending, self.timeout, in_thread):
            for text in pending.pieces():
                if piece := parser.feed(text):
                    yield tell(to_chunk(piece))
        reply = pending.result()
        yield tell(to_last_chunk(parser.finish(), reply, self._metadata(call, reply)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = await asyncio.to_thread(self._call, messages, stop, kwargs)
        parser = call.parser()

        async def tell(message: AIMessageChunk) -> ChatGenerationChunk:
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(message.text), chunk=chunk)
            return chunk

        pending = await self._asubmit(call, stream=True)
        with deadline(pending, self.timeout, on_loop):
            async for text in pending.apieces():
                if piece := parser.feed(text):
                    yield await tell(to_chunk(piece))
        reply = pending.result()
        yield await tell(to_last_chunk(parser.finish(), reply, self._metadata(call, reply)))

    def _call(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> Call:
        """Make a call ready. It reads files and builds grammars: not for an event loop's thread."""
        return self._prepared(to_chat(messages), stop, kwargs)

    def _prepared(self, chat: list[ChatDict], stop: list[str] | None, kwargs: dict[str, Any]) -> Call:
        if unknown := set(kwargs) - _WANTED - _SAMPLED - _IGNORED - {"model", "logprobs"}:
            known = ", ".join(sorted(_WANTED | _SAMPLED | {"model", "logprobs", "stop"}))
            raise ConfigurationError(f"a call takes no {', '.join(sorted(unknown))}; it takes {known}")
        settings = {name: getattr(self, name) for name in _SAMPLED} | _given(kwargs, _SAMPLED)
        sampling = to_sampling(settings, stop=self.stop if stop is None else stop)
        wanted = Wanted(**{"thinking": self.thinking} | _given(kwargs, _WANTED))
        if any(not isinstance(tool, dict) or "function" not in tool for tool in wanted.tools):
            raise ConfigurationError("tools are given in OpenAI's form; let bind_tools put them so")
        answerer = self._answerer(kwargs.get("model"))
        return prepare(self.engine, chat, wanted, sampling, answerer, logprobs=bool(kwargs.get("logprobs")))

    def _submit(self, call: Call, *, stream: bool = False) -> Pending:
        return self.engine.submit(
            call.prompt, adapter=call.adapter, sampling=call.sampling, stream=stream, timeout=self.timeout
        )

    async def _asubmit(self, call: Call, *, stream: bool = False) -> Pending:
        try:
            async with asyncio.timeout(self.timeout):
                return await self.engine.asubmit(
                    call.prompt, adapter=call.adapter, sampling=call.sampling, stream=stream
                )
        except TimeoutError as exc:
            raise EngineBusyError(f"no place in the engine's queue within {self.timeout:g} s; ask again later") from exc

    def _answerer(self, name: str | None) -> Answerer:
        """Find who answers: the base, an adapter that is loaded, or one to load from the registry."""
        base = _label(self.model_name)
        if name is None and self._card is not None and self.adapter == self._card.id:
            return Answerer(key=self._key, model=base, adapter=self._card.id, calibration=self._card.calibration)
        wanted = self.adapter if name is None else name
        if wanted in ("", self.model_name, self.engine.base, base):
            return Answerer(model=base)
        loaded = {each.name: each for each in self.engine.adapters()} | {e.key: e for e in self.engine.adapters()}
        found = loaded.get(wanted)
        card = found.card if found is not None else self._find(wanted)  # a node's may have been promoted meanwhile
        if card.is_full:
            raise UnsupportedAdapterError(f"{card.id} is a whole model, no adapter; open it with TinyAgent.load(card)")
        found = found or loaded.get(card.key)
        key = found.key if found is not None else self.engine.load_adapter(card, name=card.key)
        model = base if name is None else name
        return Answerer(key=key, model=model, adapter=card.id, calibration=card.calibration)

    def _find(self, name: str) -> AdapterCard:
        try:
            if not _NAME.fullmatch(name):  # the registry would take a path, too
                raise AdapterNotFoundError("not a name")
            return self._registry.get(name)
        except AdapterNotFoundError as exc:
            loaded = [each.name for each in self.engine.adapters()]
            known = dict.fromkeys([_label(self.model_name), *loaded, *(card.id for card in self._registry.list())])
            raise AdapterNotFoundError(f"no model or adapter {name!r}; known: {', '.join(known)}") from exc

    def _result(self, call: Call, reply: Reply) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message(call, reply))])

    def _message(self, call: Call, reply: Reply) -> AIMessage:
        parsed = parse_reply(reply.raw, call.parser())
        return to_message(parsed, reply, self._metadata(call, reply))

    def _metadata(self, call: Call, reply: Reply) -> dict[str, Any]:
        return call.describe(reply, self.engine.tokenizer)

    # -- LangChain asks -----------------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "tinyagent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What makes replies of two models differ: LangChain's caches go by it, and traces show it."""
        return {
            "model_name": _label(self.model_name),
            "base_hash": self.engine.base_hash[:12],
            "adapter": self._key or self.adapter,
            "thinking": self.thinking,
            "stop": self.stop,
        } | {name: getattr(self, name) for name in sorted(_SAMPLED)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = kwargs.get("model") or _label(self.model_name)
        return params


def _label(name: str) -> str:
    """Name a base without telling where on this machine it lies."""
    is_path = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] if is_path else name


def _given(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names and value is not None}
