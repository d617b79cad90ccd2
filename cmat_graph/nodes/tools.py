"""LangChain tools as a way to act: looked at before they run, bounded while they run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from cmat_graph.nodes.calling import to_langchain
from cmat_graph.nodes.seat import Call, Do, Turn
from cmat_graph.probes import probe_arguments
from cmat_graph.types import Finding, Message, Observation, ToolCall

MAX_CALLS = 16
"""Calls that one turn may make."""
UNSURE = "Some of it may have been done, or may still be: look before you repeat it."
RESULT_CHARS = 8_000
"""Longest result that is kept."""

Tool = BaseTool | Callable[..., Any]


class Toolbox:
    """The tools of one graph.

    Args:
        tools: LangChain tools or plain functions with docstrings.
        seconds: One turn's calls may take this long together.

    """

    def __init__(self, tools: Sequence[Tool], *, seconds: float) -> None:
        # `handle_tool_errors=True`: a tool that raises is an observation like any other.
        self._node: Runnable[Any, Any] = ToolNode(list(tools), handle_tool_errors=True)
        self.tools: list[BaseTool] = list(self._node.tools_by_name.values())  # type: ignore[attr-defined]
        self._schemas = {t.name: convert_to_openai_tool(t)["function"]["parameters"] for t in self.tools}
        self._seconds = seconds

    def probe(self, draft: Message) -> Finding | None:
        """Check the calls of a draft against the tools' JSON schemas."""
        calls = draft.get("tool_calls", [])
        if len(calls) > MAX_CALLS:
            return Finding(text=f"{len(calls)} tool calls in one turn.", hint=f"Make at most {MAX_CALLS}.")
        for call in calls:
            if call["name"] not in self._schemas:
                known = ", ".join(sorted(self._schemas))
                return Finding(text=f"There is no tool {call['name']!r}.", hint=f"The tools are: {known}.")
            if finding := probe_arguments(call["name"], call["args"], self._schemas[call["name"]]):
                return finding
        return None

    def run(self, turn: Turn, draft: Message) -> Generator[Call | Do, Any, tuple[Observation, list[Message]]]:
        """Run a draft's calls; return what came of them together, and one message for each."""
        calls = draft.get("tool_calls", [])
        few: Message = {**draft, "tool_calls": calls[:MAX_CALLS]}
        before = [to_langchain(message) for message in turn.loop["trajectory"][:-1]]
        given: list[AnyMessage] = [*turn.messages, *before, to_langchain(few)]  # type: ignore[list-item]
        try:
            result = yield Call(self._node, {"messages": given}, turn.config, self._seconds)
        except TimeoutError:
            return self.refuse(calls, f"Error: no result within {self._seconds:g} seconds. {UNSURE}")
        found = {message.tool_call_id: message for message in _tool_messages(result)}
        messages: list[Message] = []
        error = False
        for call in calls:
            message = found.get(call["id"])
            text = _text(message) if message else f"Error: not run; at most {MAX_CALLS} calls in one turn."
            failed = message is None or message.status == "error"
            error = error or failed
            messages.append(_answer(call, text, error=failed))
        return Observation(text="\n".join(m["content"] for m in messages), error=error), messages

    def refuse(self, calls: Sequence[ToolCall], text: str) -> tuple[Observation, list[Message]]:
        """Answer every call with the same error."""
        messages = [_answer(call, text, error=True) for call in calls]
        return Observation(text=text, error=True), messages


def _answer(call: ToolCall, text: str, *, error: bool) -> Message:
    answer: Message = {"role": "tool", "content": text, "tool_call_id": call["id"]}
    if error:
        answer["error"] = True
    return answer


def _tool_messages(result: Any) -> list[ToolMessage]:
    """Collect the tool messages; a tool may also return a `Command` that carries them."""
    found: list[ToolMessage] = []
    for part in result if isinstance(result, list) else [result]:
        update = part.update if isinstance(part, Command) else part
        messages = update.get("messages", []) if isinstance(update, dict) else []
        found += [message for message in messages if isinstance(message, ToolMessage)]
    return found


def _text(message: ToolMessage) -> str:
    text = str(message.text) if isinstance(message.content, (str, list)) else str(message.content)
    if len(text) <= RESULT_CHARS:
        return text
    return f"{text[:RESULT_CHARS]}\n[{len(text) - RESULT_CHARS} more characters were cut]"
