"""What passes between an agent of LangChain's and the loop: its state, its requests to the model, its last turn."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware import AgentState, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.middleware.types import OmitFromInput
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.config import get_config
from langgraph.types import Command
from pydantic import TypeAdapter, ValidationError

from cmat_graph.nodes.attempt import name_of
from cmat_graph.nodes.calling import from_langchain, task_message
from cmat_graph.probes import probe_arguments
from cmat_graph.state import Loop, merge
from cmat_graph.traces.handler import find_recorder

CHECKER = "checker"
"""Name of the human message that carries the checker's words."""


class AgentLoop(Loop, total=False):
    """What CMAT keeps in an agent's state, all under the one key `cmat`."""

    misuse: dict[str, dict[str, Any]]
    """What the tools' schemas say against the model's last turn, by the turn's text; each is a `Finding`."""


class CMATAgentState(AgentState[Any]):
    """An agent's state with CMAT in it."""

    cmat: NotRequired[Annotated[AgentLoop, OmitFromInput, merge]]


def with_lessons(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """Quote the lessons below the task, in this request only; the system message stays as it is."""
    loop: AgentLoop = request.state.get("cmat") or {}  # type: ignore[assignment]
    at = task_at(request.messages, loop.get("task"))
    if not loop.get("lessons") or at < 0:
        return request
    block = task_message({"task": "", "lessons": loop["lessons"]})["content"]
    task = request.messages[at]
    content: Any = task.content
    content = content + block if isinstance(content, str) else [*content, {"type": "text", "text": block.strip()}]
    shown = task.model_copy(update={"content": content})
    return request.override(messages=[*request.messages[:at], shown, *request.messages[at + 1 :]])


@contextmanager
def as_assistant(request: ModelRequest[Any]) -> Iterator[Callable[[], str]]:
    """Tell the recorder that the model speaks as the assistant; yields how to ask for the call's trace key."""
    config = get_config()
    recorder = find_recorder(config)
    told = config.get("metadata") or {}
    if recorder is None or "cmat_call" in told:  # inside our own graph, its assistant's node has told already
        yield lambda: ""
        return
    call = uuid.uuid4().hex
    loop: AgentLoop = request.state.get("cmat") or {}  # type: ignore[assignment]
    told = {**told, "cmat_call": call, "cmat_node": "assistant", "cmat_attempt": loop.get("attempt", 1)}
    token = var_child_runnable_config.set({**config, "metadata": told})
    try:
        yield partial(recorder.key_of, call)
    finally:
        var_child_runnable_config.reset(token)


def noted(request: ModelRequest[Any], response: ModelResponse[Any], step: str) -> ExtendedModelResponse[Any]:
    """Leave for `after_model` what only the request tells: the call's trace key, and what the tools' schemas say."""
    message = next((m for m in reversed(response.result) if isinstance(m, AIMessage)), None)
    change: AgentLoop = {"step": step, "misuse": misuse(message, request.tools) if message is not None else {}}
    return ExtendedModelResponse(model_response=response, command=Command(update={"cmat": change}))


def misuse(message: AIMessage, tools: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Check arguments against schemas. Calls of tools unknown here are left to whoever brought them in."""
    known = {tool.name: tool for tool in tools if isinstance(tool, BaseTool)}
    for call in message.tool_calls:
        if tool := known.get(call["name"]):
            schema = convert_to_openai_tool(tool)["function"]["parameters"]
            if finding := probe_arguments(call["name"], call["args"], schema):
                return {name_of(from_langchain(message)): asdict(finding)}
    return {}


def task_at(messages: Sequence[AnyMessage], task: str | None = None) -> int:
    """Return where the task stands: the last human message, or the one that says `task`; -1 when there is none."""
    human = [i for i, m in enumerate(messages) if isinstance(m, HumanMessage) and m.name != CHECKER]
    stated = [i for i in human if task is not None and messages[i].text == task]
    return (stated or human or [-1])[-1]


def last_turn(messages: Sequence[AnyMessage]) -> tuple[AIMessage | None, set[str]]:
    """Return the model's last message, and which of its calls were answered already."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            return message, answered
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
    return None, answered


def is_outermost(config: RunnableConfig) -> bool:
    """Tell whether the agent is the whole run; inside another graph, that graph says how the episode ends."""
    return "|" not in str((config.get("configurable") or {}).get("checkpoint_ns", ""))


def structured(last: Any, update: dict[str, Any]) -> dict[str, Any]:
    """Give an agent that owes a structured answer the best attempt's, or None where the last was of another kind.

    One that only talked would be asked again by its own graph, without end; it is stopped here.
    """
    if last is None:
        return {"jump_to": "end"}
    if "messages" not in update:
        return {}
    try:
        return {"structured_response": TypeAdapter(type(last)).validate_json(update["cmat"]["answer"])}
    except ValidationError:
        return {"structured_response": None}
