"""A seat of the debate graph: asks one model, and records the call in the episode that it belongs to."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp

from cmat_graph.debate.asking import Asked, Heard, answered, failure, said
from cmat_graph.debate.rounds import Rules
from cmat_graph.debate.state import Ask, DebateState, to_call
from cmat_graph.nodes.calling import to_langchain
from cmat_graph.traces.handler import find_recorder
from cmat_graph.traces.recorder import Recorder

_going_on = threading.Lock()


def is_guest(config: RunnableConfig) -> bool:
    """Tell whether the debate is part of another graph's run, whose episode is not the debate's to begin and to end."""
    told = config.get("metadata") or {}
    return "cmat_node" in told or "|" in str(told.get("langgraph_checkpoint_ns", ""))


def recorder_of(config: RunnableConfig, episode: str) -> Recorder | None:
    """Return the recorder of this run; one that goes on for an earlier run writes to the episode that was begun."""
    recorder = find_recorder(config)
    if recorder is not None and episode and not is_guest(config):
        with _going_on:  # agents of a round come at the same time
            recorder.go_on(episode)
    return recorder


class Voice(Runnable[Ask, DebateState]):
    """The node of one agent, or of the summariser.

    Args:
        model: Who speaks.
        rules: What all are bound by.

    """

    def __init__(self, model: Runnable[Any, Any], rules: Rules) -> None:
        self._model, self._rules = model, rules

    def invoke(self, input: Ask, config: RunnableConfig | None = None, **kwargs: Any) -> DebateState:
        """Ask in this thread."""
        asked, prompt, inner, call = self._ready(input, config or {})
        begin = time.perf_counter()
        try:
            heard: Heard = self._model.invoke(prompt, inner, **asked.settings(self._model))
        except Exception as exc:
            heard = self._failed(exc)
        return self._told(input, asked, heard, time.perf_counter() - begin, config or {}, call)

    async def ainvoke(self, input: Ask, config: RunnableConfig | None = None, **kwargs: Any) -> DebateState:
        """Ask on the event loop."""
        asked, prompt, inner, call = await asyncio.to_thread(self._ready, input, config or {})  # it may read the traces
        begin = time.perf_counter()
        try:
            heard: Heard = await self._model.ainvoke(prompt, inner, **asked.settings(self._model))
        except Exception as exc:
            heard = self._failed(exc)
        seconds = time.perf_counter() - begin
        return await asyncio.to_thread(self._told, input, asked, heard, seconds, config or {}, call)

    def _ready(self, ask: Ask, config: RunnableConfig) -> tuple[Asked, list[BaseMessage], RunnableConfig, str]:
        asked = Asked(
            role=ask["role"],
            agent=ask["agent"],
            round=ask["round"],
            messages=ask["messages"],
            seed=ask["seed"],
            summary=ask["summary"],
        )
        recorder = recorder_of(config, ask["episode"])
        told = dict(config.get("metadata") or {})
        call = recorder.new_call() if recorder is not None else ""
        told |= {"cmat_node": asked.node, "cmat_call": call}
        if not is_guest(config):  # a guest's calls belong to the attempt around it
            told["cmat_attempt"] = asked.round
        prompt = [to_langchain(message) for message in asked.messages]
        return asked, prompt, {**config, "metadata": told}, call

    @staticmethod
    def _failed(exc: Exception) -> Exception:
        if isinstance(exc, GraphBubbleUp):  # a graph in this seat waits for a person, or leads elsewhere
            raise exc
        return failure(exc)

    def _told(
        self, ask: Ask, asked: Asked, heard: Heard, seconds: float, config: RunnableConfig, call: str
    ) -> DebateState:
        recorder = recorder_of(config, ask["episode"])
        key = recorder.key_of(call) if recorder is not None else ""
        what = said(self._rules, asked, answered(heard, seconds=seconds, model=self._model, key=key))
        id_ = str(getattr(heard, "id", "") or "")
        record = to_call(what, id_ if id_.startswith("lc_run-") else "")  # LangChain's own are never used again
        return {"debate": {"summaries" if asked.role == "summary" else "turns": [record]}}  # type: ignore[misc]
