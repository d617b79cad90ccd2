"""Agents with a script, and two ways to have them debate: as a graph, and in batches."""

from __future__ import annotations

import threading
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from cmat_graph.debate import DebateSettings, create_debate_graph, read_debate, run_debates
from cmat_graph.debate.seats import Seats
from cmat_graph.traces import Recorder, SQLTraceStore
from cmat_graph.types import Task

TASK = Task(id="q", prompt="What is 6*7?")


class Agent(BaseChatModel):
    """Says what its script says to a prompt: texts in turn, the last again and again, or a function of the prompt."""

    script: Any
    name: str = "agent"

    _heard: list[list[dict[str, str]]] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def heard(self):
        """The prompts it was given, as records."""
        return self._heard

    @property
    def _llm_type(self):
        return "agent"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        roles = {"human": "user", "ai": "assistant"}
        prompt = [{"role": roles.get(m.type, m.type), "content": str(m.content)} for m in messages]
        with self._lock:
            at = len(self._heard)
            self._heard.append(prompt)
        reply = self.script(prompt) if callable(self.script) else self.script[min(at, len(self.script) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        return ChatResult(generations=[ChatGeneration(message=AIMessage(reply))])


def agent(*replies, name="agent"):
    return Agent(script=list(replies), name=name)


def sums_up(prompt):
    """Sum up by quoting all of it."""
    return "SUM{" + prompt[-1]["content"].replace("\n", " ") + "}"


def as_graph(task=TASK, *, traces=None, run="", context=(), **choice):
    traces = traces or SQLTraceStore("sqlite://")
    recorder = Recorder(traces, task=task, run=run)
    graph = create_debate_graph(**choice).compile()
    graph.invoke({"messages": [*context, ("user", task.prompt)]}, {"callbacks": [recorder]})
    traces.flush()
    return next(read_debate(e) for e in traces.episodes(run=run) if e.id == recorder.episode_id)


def in_batches(task=TASK, *, traces=None, run="", **choice):
    names = {"rounds", "summarise", "mode", "stop_when_unanimous", "most_solutions", "seed"}
    settings = DebateSettings(**{name: value for name, value in choice.items() if name in names})
    others = {name: value for name, value in choice.items() if name not in names}
    [debate] = run_debates([task], settings=settings, traces=traces, run=run, **others)
    return debate


WAYS = {"graph": as_graph, "batches": in_batches}
__all__ = ["TASK", "WAYS", "Agent", "Seats", "agent", "as_graph", "in_batches", "sums_up"]
