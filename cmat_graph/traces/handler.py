"""Recording that nobody has to think about: attach a `TraceHandler` to any graph, and each run is an episode."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig

from cmat_graph.traces.base import TraceStore
from cmat_graph.traces.recorder import Recorder
from cmat_graph.types import StopReason, Task

_WAITS = ("GraphInterrupt", "NodeInterrupt")
"""How LangGraph leaves a node that waits for a person; by name, since traces need no LangGraph."""
_HANDS_OVER = "ParentCommand"
"""How it leaves one that sends the run elsewhere."""


@dataclass(slots=True)
class _Run:
    """One run of a graph: its recorder, and every run inside it."""

    root: uuid.UUID
    recorder: Recorder
    members: list[uuid.UUID] = field(default_factory=list)
    waits: bool = False
    """True when something in it waits for a person."""


class TraceHandler(BaseCallbackHandler):
    """Records each run of any graph it is attached to, also one around or inside ours.

    Args:
        traces: Where to write.
        run: Label of the runs.

    Example:
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> from cmat_graph.traces import SQLTraceStore
        >>> traces = SQLTraceStore("sqlite://")
        >>> model = ScriptedChatModel(replies=["Four."]).with_config(callbacks=[TraceHandler(traces)])
        >>> _ = model.invoke("What is 2 + 2?")
        >>> [(episode.task.prompt, episode.answer) for episode in traces.episodes()]
        [('What is 2 + 2?', 'Four.')]

    """

    run_inline = True

    def __init__(self, traces: TraceStore, *, run: str = "") -> None:
        self._traces = traces
        self._label = run
        self._runs: dict[uuid.UUID, _Run] = {}
        self._lock = threading.Lock()

    def recorder_of(self, run_id: uuid.UUID | None) -> Recorder | None:
        """Return the recorder of the episode that a run belongs to."""
        run = self._runs.get(run_id) if run_id is not None else None
        return run.recorder if run is not None else None

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: uuid.UUID,
        parent_run_id: uuid.UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin an episode, or join a run to its parent's."""
        self._join(run_id, parent_run_id, inputs, metadata)

    def on_chain_end(self, outputs: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """End the episode with the last answer, unless our own nodes said how it ended."""
        self._leave(run_id, stopped="ended", answer=_last_answer(outputs))

    def on_chain_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """End the episode with its error; an interrupt only waits for a person."""
        if type(error).__name__ in _WAITS:
            self._wait(run_id)
        elif type(error).__name__ != _HANDS_OVER:
            self._leave(run_id, stopped="error", error=_told(error))

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: uuid.UUID,
        parent_run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Join a tool to its parent's episode: it may call models."""
        self._join(run_id, parent_run_id, input_str, None)

    def on_tool_end(self, output: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """End the episode of a tool that was called by itself."""
        self._leave(run_id, stopped="ended", answer=str(getattr(output, "content", output)))

    def on_tool_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """End the episode of a tool that was called by itself and failed."""
        self.on_chain_error(error, run_id=run_id)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: uuid.UUID,
        parent_run_id: uuid.UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Pass a call on to its episode."""
        recorder = self._join(run_id, parent_run_id, {"messages": messages[0]}, metadata)
        recorder.on_chat_model_start(serialized, messages, run_id=run_id, metadata=metadata, **kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Pass a reply on to its episode."""
        if recorder := self.recorder_of(run_id):
            recorder.on_llm_end(response, run_id=run_id)
            self._leave(run_id, stopped="ended", answer=_last_answer(response))

    def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Pass a failure on to its episode."""
        if recorder := self.recorder_of(run_id):
            recorder.on_llm_error(error, run_id=run_id)
            self._leave(run_id, stopped="error", error=_told(error))

    def _join(
        self, run_id: uuid.UUID, parent: uuid.UUID | None, inputs: Any, metadata: dict[str, Any] | None
    ) -> Recorder:
        with self._lock:
            run = self._runs.get(parent) if parent is not None else None
            if run is None:
                task = Task(id=str((metadata or {}).get("thread_id") or run_id), prompt=_last_task(inputs))
                run = _Run(run_id, Recorder(self._traces, task=task, run=self._label))
            run.members.append(run_id)
            self._runs[run_id] = run
        return run.recorder

    def _wait(self, run_id: uuid.UUID) -> None:
        run = self._runs.get(run_id)
        if run is not None:
            run.waits = True
            self._leave(run_id, stopped="running")

    def _leave(self, run_id: uuid.UUID, *, stopped: StopReason, answer: str = "", error: str = "") -> None:
        with self._lock:
            run = self._runs.get(run_id)
            if run is None or run.root != run_id:
                return
            for member in run.members:
                self._runs.pop(member, None)
        if not run.recorder.finished and not run.waits:
            run.recorder.finish(reward=None, stopped=stopped, attempts=1, answer=answer, error=error)


def find_recorder(config: RunnableConfig) -> Recorder | None:
    """Return the recorder among a running node's callbacks."""
    callbacks: Any = config.get("callbacks")
    for handler in getattr(callbacks, "handlers", ()):
        if isinstance(handler, Recorder):
            return handler
        if isinstance(handler, TraceHandler):
            return handler.recorder_of(callbacks.parent_run_id)
    return None


def _last_task(inputs: Any) -> str:
    messages = inputs.get("messages") if isinstance(inputs, Mapping) else inputs
    if isinstance(messages, str):
        return messages
    for message in reversed(messages if isinstance(messages, Sequence) else ()):
        if isinstance(message, HumanMessage):
            return str(message.text)
        if isinstance(message, (tuple, list)) and len(message) == 2 and message[0] in ("user", "human"):
            return str(message[1])
        if isinstance(message, Mapping) and message.get("role", message.get("type")) in ("user", "human"):
            return str(message.get("content", ""))
    return ""


def _last_answer(outputs: Any) -> str:
    if isinstance(outputs, LLMResult):
        return str(outputs.generations[0][0].text) if outputs.generations and outputs.generations[0] else ""
    messages = outputs.get("messages") if isinstance(outputs, Mapping) else None
    for message in reversed(messages if isinstance(messages, Sequence) else ()):
        if isinstance(message, AIMessage):
            return str(message.text)
    return ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip()
