"""One call of a chat model: what is wanted of the reply, and the prompt, sampling and parser that get it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.chat.parsing import THINK, ReplyParser
from cmat_graph.models.decoding.rows import ChatEngine, Reply
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.handover.confidence import confidence_metadata
from cmat_graph.rendering.prompt import arrange
from cmat_graph.rendering.template import ChatDict, ChatTemplate, encode, study

PROVIDER = "cmat-graph"
MOST_STOPS, LONGEST_STOP = 16, 512
"""Each is looked for at every token, by the thread that serves all requests."""
_RANGES = [
    ("max_tokens", 1, 2**31),
    ("temperature", 0, 100),
    ("top_p", 0, 1),
    ("top_k", 0, 2**31),
    ("min_p", 0, 1),
    ("repetition_penalty", 0.01, 100),
    ("seed", -(2**63), 2**63),
]
_WHOLE = {"max_tokens", "top_k", "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reply shall be, beside its sampling."""

    tools: Sequence[Mapping[str, Any]] = ()
    """In OpenAI's form."""
    tool_choice: Any = None
    """`auto`, `none`, `required` or `any`, a tool's name, or OpenAI's object around a name."""
    response_format: Mapping[str, Any] | None = None
    """OpenAI's `json_schema` or `json_object`."""
    choices: Sequence[str] = ()
    """The reply is one of these texts."""
    thinking: bool | None = None
    """Switch the model's reasoning on or off; None leaves it to its template."""

    @property
    def called(self) -> list[Mapping[str, Any]]:
        """The tools that the reply must call one of; empty when it need not."""
        if self.tool_choice in (None, "auto", "none", False):
            return []
        if self.tool_choice in ("required", "any", True):
            name = ""
        else:
            function = self.tool_choice.get("function", self.tool_choice) if isinstance(self.tool_choice, dict) else {}
            name = str(function.get("name") or self.tool_choice)
        chosen = [tool for tool in self.tools if name in ("", tool["function"]["name"])]
        if not chosen:
            known = ", ".join(tool["function"]["name"] for tool in self.tools) or "none; bind some"
            raise ConfigurationError(f"tool_choice {name or self.tool_choice!r} names no bound tool; known: {known}")
        return chosen

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema that the reply must follow."""
        kind = (self.response_format or {"type": "text"}).get("type")
        if kind == "text":
            return None
        if kind == "json_object":
            return {"type": "object"}
        schema = ((self.response_format or {}).get("json_schema") or {}).get("schema")
        if kind != "json_schema" or not isinstance(schema, Mapping):
            raise ConfigurationError(
                "response_format takes {'type': 'json_schema', 'json_schema': {'name': ..., 'schema': {...}}}, "
                f"{{'type': 'json_object'}} or {{'type': 'text'}}, not {self.response_format!r}"
            )
        return schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """Who answers a call."""

    key: str = ""
    """The engine's key of the adapter; empty for the bare base."""
    model: str = ""
    """The name by which the caller knows it."""
    adapter: str = ""
    """The adapter's id."""
    calibration: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call, ready for the engine."""

    prompt: list[int]
    sampling: Sampling
    answerer: Answerer
    template: ChatTemplate
    tools: frozenset[str]
    """Names of the tools that the reply may call."""
    thinking: bool
    """Whether the prompt has opened the model's reasoning."""
    logprobs: bool

    @property
    def adapter(self) -> str:
        """The engine's key of the adapter."""
        return self.answerer.key

    def parser(self) -> ReplyParser:
        """Return what cuts the reply into its parts."""
        special = self.template.special
        return ReplyParser(self.template.format, tools=self.tools, thinking=self.thinking, special=special)

    def describe(self, reply: Reply, tokenizer: Any) -> dict[str, Any]:
        """Return what a message's `response_metadata` tells about its reply."""
        described = {
            "model_name": self.answerer.model,
            "model_provider": PROVIDER,
            "adapter": self.answerer.adapter,
            "finish_reason": reply.finish_reason,
            **confidence_metadata(self.answerer.calibration, reply.logprobs),
        }
        if self.logprobs:
            pairs = zip(reply.tokens, reply.logprobs, strict=False)
            content = [{"token": tokenizer.decode([token]), "logprob": logprob} for token, logprob in pairs]
            described["logprobs"] = {"content": content}
        return described


def to_sampling(settings: Mapping[str, Any], *, stop: str | Sequence[str] | None = None) -> Sampling:
    """Put sampling together.

    Raises:
        ConfigurationError: A value is of the wrong type or out of its range.

    """
    marks = [stop] if isinstance(stop, str) else list(stop or ())
    if len(marks) > MOST_STOPS or not all(isinstance(mark, str) and len(mark) <= LONGEST_STOP for mark in marks):
        raise ConfigurationError(f"stop takes {MOST_STOPS} strings of {LONGEST_STOP} characters each at most")
    values = {name: value for name, value in settings.items() if value is not None}
    for name, low, high in _RANGES:
        if (value := values.get(name)) is None:
            continue
        is_number = isinstance(value, Integral if name in _WHOLE else Real) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            what = "a whole number" if name in _WHOLE else "a number"
            raise ConfigurationError(f"{name} is {what} between {low:g} and {high:g}, not {value!r}")
        values[name] = int(value) if name in _WHOLE else float(value)  # it may be NumPy's
    return Sampling(**values, stop=tuple(filter(None, marks)))


def prepare(
    engine: ChatEngine,
    chat: Sequence[ChatDict],
    wanted: Wanted,
    sampling: Sampling = Sampling(),
    answerer: Answerer = Answerer(),
    *,
    logprobs: bool = False,
) -> Call:
    """Make a call of a conversation.

    Raises:
        ConfigurationError: The model's template, or constrained decoding, cannot do what is wanted.

    """
    if not chat:
        raise ConfigurationError("there are no messages; give at least one")
    try:
        _check_text(chat, wanted)
        return _prepare(engine, chat, wanted, sampling, answerer, logprobs=logprobs)
    except RecursionError as exc:
        raise ConfigurationError("the messages, tools or schema are nested too deep") from exc


def _check_text(chat: Sequence[ChatDict], wanted: Wanted) -> None:
    """Refuse what no tokenizer and no grammar reads."""
    if isinstance(wanted.choices, str) or not all(isinstance(choice, str) and choice for choice in wanted.choices):
        raise ConfigurationError(f"choices is a list of texts, not {wanted.choices!r:.200}")
    try:
        for part in (chat, wanted.tools, wanted.response_format, list(wanted.choices)):
            json.dumps(part, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"a text holds half a character, which cannot be read: {exc}") from exc


def _prepare(
    engine: ChatEngine,
    chat: Sequence[ChatDict],
    wanted: Wanted,
    sampling: Sampling,
    answerer: Answerer,
    *,
    logprobs: bool,
) -> Call:
    tools = [] if wanted.tool_choice == "none" else wanted.tools
    called, schema = wanted.called, wanted.schema
    constrained = bool(called or schema is not None or wanted.choices)
    thinking = wanted.thinking
    if thinking is None and constrained:
        thinking = False  # a forced reply has no room for reasoning unless it is asked for
    template = study(engine.tokenizer)
    arranged, options = arrange(engine.tokenizer, chat, tools, thinking=thinking)
    prompt = encode(engine, arranged, **options)
    opened = str(engine.tokenizer.decode(prompt[-8:], skip_special_tokens=False)).rstrip().endswith(THINK)
    if constrained:
        from cmat_graph.models.chat.grammar import grammars_of  # llguidance takes a moment, and not all calls need it

        constraint = grammars_of(engine.tokenizer, engine.ends).constraint(
            schema=None if called else schema,
            choices=() if called else wanted.choices,
            tools=called or tools,
            form=template.format,
            thinking="open" if opened else "may" if thinking else "",
        )
        sampling = sampling._replace(constraint=constraint)
    return Call(
        prompt=prompt,
        sampling=sampling,
        answerer=answerer,
        template=template,
        tools=frozenset(tool["function"]["name"] for tool in tools),
        thinking=opened,
        logprobs=logprobs,
    )
