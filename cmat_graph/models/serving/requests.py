"""What clients send: read, checked, and turned into LangChain's messages and settings."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from cmat_graph.models.serving.refusals import Refusal

MAX_CHOICES = 64
MAX_MESSAGES = 10_000
_SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")

Name = Annotated[str, Field(min_length=1, max_length=512)]
AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,255}$")]
Body = TypeVar("Body", bound=BaseModel)


class _Read(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class TextPart(_Read):
    """One part of a content list; only text is understood."""

    type: Literal["text"]
    text: str


class Call(_Read):
    """The function of a tool call in an earlier reply."""

    name: Name
    arguments: str = "{}"


class ToolCall(_Read):
    """A tool call of an earlier reply."""

    id: Name
    type: Literal["function"] = "function"
    function: Call


class ChatMessage(_Read):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Name | None = None
    reasoning_content: str | None = None

    @model_validator(mode="after")
    def _check(self) -> ChatMessage:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("a message needs content")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool's message needs tool_call_id")
        return self

    def to_langchain(self) -> BaseMessage:
        """Return the message as LangChain has it."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        match self.role:
            case "user":
                return HumanMessage(text, name=self.name)
            case "tool":
                return ToolMessage(text, tool_call_id=str(self.tool_call_id), name=self.name)
            case "assistant":
                return self._answer(text)
        return SystemMessage(text, name=self.name)

    def _answer(self, text: str) -> AIMessage:
        calls, invalid = [], []
        for each in self.tool_calls or ():
            name, arguments = each.function.name, each.function.arguments
            args = _arguments(arguments)
            if args is None:
                invalid.append(invalid_tool_call(name=name, args=arguments, id=each.id, error="no JSON object"))
            else:
                calls.append(tool_call(name=name, args=args, id=each.id))
        more = {"reasoning_content": self.reasoning_content} if self.reasoning_content else {}
        return AIMessage(text, name=self.name, tool_calls=calls, invalid_tool_calls=invalid, additional_kwargs=more)


class Function(_Read):
    """A function that may be called."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Read):
    """A tool that may be called."""

    type: Literal["function"]
    function: Function


class ChosenFunction(_Read):
    """The name of the function that must be called."""

    name: str


class ChosenTool(_Read):
    """The tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class JSONSchema(_Read):
    """A named schema."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Name = "reply"
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(_Read):
    """What the reply must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None

    @model_validator(mode="after")
    def _check(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self


class TemplateSettings(_Read):
    """What vLLM hands to the chat template; here, only whether a thinking model thinks."""

    enable_thinking: bool | None = None


class Structure(_Read):
    """vLLM's own ways to constrain a reply; here, only the choice among texts."""

    choice: list[Name] | None = Field(None, min_length=1)


class StreamOptions(_Read):
    """What a stream tells beside the text."""

    include_usage: bool | None = None


class ChatRequest(_Read):
    """The body of a chat completion. Fields that are not known are left aside, as other servers do."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: Name
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**62), le=2**62)
    logprobs: bool | None = None
    chat_template_kwargs: TemplateSettings | None = None
    structured_outputs: Structure | None = None
    # What would change the reply and cannot be done here is refused unless it says "as usual".
    top_logprobs: Literal[0] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _check(self) -> ChatRequest:
        known = {tool.function.name for tool in self.tools or ()}
        if isinstance(self.tool_choice, ChosenTool) and self.tool_choice.function.name not in known:
            raise ValueError(f"tool_choice names {self.tool_choice.function.name!r}, which is not in tools")
        if self.tool_choice == "required" and not known:
            raise ValueError("tool_choice is required, but there are no tools")
        if any(not mark for mark in self.marks):
            raise ValueError("a stop string must not be empty")
        return self

    @property
    def marks(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def choices(self) -> int:
        """How many replies are wanted."""
        return self.n or 1

    def to_langchain(self) -> list[BaseMessage]:
        """Return the conversation as LangChain has it."""
        return [message.to_langchain() for message in self.messages]

    def settings(self, choice: int = 0) -> dict[str, Any]:
        """Return what the chat model's call takes; what the client leaves out is left to the model.

        Several choices of one seed differ from one another, and are the same again the next time.
        """
        found = {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}
        if self.seed is not None:
            found["seed"] = self.seed + choice
        if tokens := self.max_completion_tokens or self.max_tokens:
            found["max_tokens"] = tokens
        if self.marks:
            found["stop"] = self.marks
        if self.logprobs:
            found["logprobs"] = True
        if self.chat_template_kwargs is not None and self.chat_template_kwargs.enable_thinking is not None:
            found["thinking"] = self.chat_template_kwargs.enable_thinking
        if self.structured_outputs is not None and self.structured_outputs.choice is not None:
            found["choices"] = self.structured_outputs.choice
        if self.tools and self.tool_choice != "none":
            found["tools"] = [tool.model_dump(exclude_unset=True) for tool in self.tools]
            if self.tool_choice is not None:
                chosen = self.tool_choice
                found["tool_choice"] = chosen if isinstance(chosen, str) else chosen.model_dump()
        if self.response_format is not None and self.response_format.type != "text":
            found["response_format"] = self.response_format.model_dump(exclude_unset=True)
        return found


class LoadRequest(_Read):
    """The body of vLLM's route that loads an adapter."""

    lora_name: AdapterName
    lora_path: Name
    load_inplace: bool = False


class UnloadRequest(_Read):
    """The body of vLLM's route that unloads one."""

    lora_name: Name


async def read(request: Request, kind: type[Body], limit: int) -> Body:
    """Read a request's body; whatever is wrong with it is a refusal that says what.

    Raises:
        Refusal: It is too large, no JSON, or not of this kind.

    """
    # A web page can post anything but JSON to this machine without asking first; so nothing but JSON is read.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "send JSON, with Content-Type: application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise Refusal(413, f"the body has more than {limit:,} bytes")
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise Refusal(400, f"{param or 'body'}: {first['msg']}", param=param, code="invalid_value") from exc


def _arguments(text: str) -> dict[str, Any] | None:
    """Read a call's arguments; None when they are no JSON object of real characters."""
    try:
        args = json.loads(text or "{}")
        json.dumps(args, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return args if isinstance(args, dict) else None
