"""The one place where a running graph writes down what it does.

A `Recorder` writes one episode. It is a LangChain callback handler: put it into `config["callbacks"]` and it sees each
model call with its exact prompt, also those inside a graph that sits in the assistant's seat. What no callback tells
(verdicts, rewards, lessons) the nodes tell it. `TraceHandler`, beside this file, opens one for each run of any graph.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult

from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Message, Reflection, Step, StopReason, Task, ToolCall, Verdict

_TOLD = ("confidence", "raw_confidence", "handed_over", "hand_over_reason")
"""What is kept of a reply's `response_metadata`, besides who answered."""
_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


class Recorder(BaseCallbackHandler):
    """Writes one episode to a trace store, step by step.

    Args:
        traces: Where to write.
        task: What is played.
        env: The environment's name.
        run: Label of the run.
        settings: Kept with the episode, to repeat it.
        episode_id: Id of an episode that goes on after its process ended; None begins a new one.

    Example:
        >>> from cmat_graph.traces import SQLTraceStore
        >>> recorder = Recorder(SQLTraceStore("sqlite://"), task=Task(id="1", prompt="Add up."))
        >>> config = {"callbacks": [recorder]}

    """

    run_inline = True  # in order, and on the event loop's own thread: writing never waits
    ignore_chain = True
    ignore_agent = True
    ignore_retriever = True

    def __init__(
        self,
        traces: TraceStore,
        *,
        task: Task,
        env: str = "",
        run: str = "",
        settings: dict[str, Any] | None = None,
        episode_id: str | None = None,
    ) -> None:
        self.episode_id = episode_id or uuid.uuid4().hex
        self.finished = False
        self._traces = traces
        self._open: dict[uuid.UUID, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        self._about: dict[str, Any] = {"env": env, "task": task, "run": run, "settings": settings or {}}
        self._started = False
        self._starting = threading.Lock()
        self._index = itertools.count(traces.count_steps(episode_id) if episode_id else 0)
        self._calls = itertools.count()

    # -- what callbacks tell --------------------------------------------------------------------------------------

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: uuid.UUID,
        metadata: dict[str, Any] | None = None,
        invocation_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note what a model is asked."""
        told = metadata or {}
        self._open[run_id] = {
            "index": next(self._index),
            "node": str(told.get("cmat_node") or told.get("langgraph_node") or "model"),
            "attempt": int(told.get("cmat_attempt", 1)),
            "call": str(told.get("cmat_call", "")),
            "messages": messages[0],
            "tools": list((invocation_params or {}).get("tools") or ()),
            "model": str(told.get("ls_model_name") or ""),
            "start": time.perf_counter(),
        }

    def on_llm_end(self, response: LLMResult, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Write down what it answered."""
        begun = self._open.pop(run_id, None)
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        message = getattr(generation, "message", None)
        if begun is None or not isinstance(message, AIMessage):
            return
        self._start()
        key = run_id.hex
        if begun["call"]:
            self._keys[begun["call"]] = key
        usage = message.usage_metadata
        named = message.response_metadata
        self._traces.record_step(
            self.episode_id,
            Step(
                key=key,
                index=begun["index"],
                attempt=begun["attempt"],
                node=begun["node"],
                messages=[to_message(given) for given in begun["messages"]],
                completion=str(message.text),
                tool_calls=_tool_calls(message),
                tools=begun["tools"],
                input_tokens=usage["input_tokens"] if usage else 0,
                output_tokens=usage["output_tokens"] if usage else 0,
                seconds=time.perf_counter() - begun["start"],
                model=str(named.get("model_name") or begun["model"]),
                adapter=str(named.get("adapter") or ""),
                told=told_of(message),
            ),
        )

    def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Forget a call that failed; what it broke is written with the episode."""
        self._open.pop(run_id, None)

    def _start(self) -> None:
        """Write that the episode began, before anything else of it; again when it goes on, lest that was lost."""
        with self._starting:  # of models that are asked at once, none writes before the episode is there
            if not self._started:
                self._traces.start_episode(self.episode_id, **self._about)
                self._started = True

    # -- what nodes tell ------------------------------------------------------------------------------------------

    def new_call(self) -> str:
        """Name a node's call, to find its model calls again."""
        return str(next(self._calls))

    def key_of(self, call: str) -> str:
        """Return the trace key of the last model call under a node's call; empty when there was none."""
        return self._keys.pop(call, "")

    def go_on(self, episode_id: str) -> None:
        """Record on in an episode that an earlier run began: one that waited for a person, or was killed."""
        if episode_id != self.episode_id:
            self.episode_id, self._started = episode_id, False
            self._index = itertools.count(self._traces.count_steps(episode_id))

    def describe(self, settings: dict[str, Any]) -> None:
        """Add to what is kept with the episode to repeat it; before its first step."""
        self._about["settings"] = {**settings, **self._about["settings"]}

    def assign(self, *, task: str, roles: dict[str, str]) -> None:
        """Record which model plays which role at which task."""
        self._start()
        self._traces.assign_roles(self.episode_id, task=task, roles=roles)

    def verdict(self, step: str, verdict: Verdict) -> None:
        """Record how a step was judged."""
        self._traces.judge_step(step, verdict=verdict)

    def observation(self, step: str, text: str, *, error: bool = False) -> None:
        """Record what the environment answered to a step."""
        self._traces.judge_step(step, observation=text, error=error)

    def reflection(self, reflection: Reflection) -> None:
        """Record a lesson."""
        self._start()
        self._traces.record_reflection(self.episode_id, reflection)

    def begin_action(self, place: str) -> bool:
        """Write that the tool calls of a round begin, before they do; False when they had begun before."""
        return self._traces.begin_action(self.episode_id, place)

    def has_begun(self, place: str) -> bool:
        """Tell whether the tool calls of a round were begun."""
        return self._traces.has_begun(self.episode_id, place)

    def finish(
        self, *, reward: float | None, stopped: StopReason, attempts: int, answer: str = "", error: str = ""
    ) -> None:
        """Record how the episode ended."""
        self.finished = True
        self._start()
        self._traces.finish_episode(
            self.episode_id, reward=reward, stopped=stopped, attempts=attempts, answer=answer, error=error
        )

    def status(self, status: str) -> None:
        """Record how the environment's rules word the episode's end."""
        self._traces.set_status(self.episode_id, status)


def to_message(message: BaseMessage) -> Message:
    """Write a LangChain message as a record."""
    content = message.content if isinstance(message.content, str) else str(message.text)
    told: Message = {"role": _ROLES.get(message.type, "user"), "content": content}
    if isinstance(message, AIMessage) and message.tool_calls:
        told["tool_calls"] = _tool_calls(message)
    elif message.type == "tool":
        told["tool_call_id"] = str(getattr(message, "tool_call_id", ""))
        if getattr(message, "status", "") == "error":
            told["error"] = True
    return told


def told_of(message: AIMessage) -> dict[str, Any]:
    """Return what a reply tells about itself, as `Step.told` keeps it."""
    named = message.response_metadata
    told = {name: named[name] for name in _TOLD if named.get(name) is not None}
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        told["reasoning"] = str(reasoning)
    return told


def _tool_calls(message: AIMessage) -> list[ToolCall]:
    return [{"name": call["name"], "args": call["args"], "id": call["id"] or ""} for call in message.tool_calls]
