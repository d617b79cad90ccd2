"""Reflect: turns what went wrong into a lesson, for the next attempt and for long-term memory."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langchain_core.messages import AnyMessage
from langgraph.store.base import BaseStore

from cmat_graph.memory.reflections import remember
from cmat_graph.nodes.attempt import Limits, add_lesson, finish, out_of, said
from cmat_graph.nodes.calling import Prompt, Speaker, ask, conversation, transcript
from cmat_graph.nodes.seat import Call, Do, Flow, Node, Turn
from cmat_graph.state import Loop
from cmat_graph.traces.redact import Redactor
from cmat_graph.types import Message, Reflection

MAX_LESSON_CHARS = 400
_REDACTOR = Redactor()


def make_reflect(model: Speaker | None, *, prompt: Prompt, store: BaseStore | None, limits: Limits) -> Node:
    """Build the node that learns from an environment's error or a failed attempt.

    Args:
        model: Writes the lesson; without one the lesson is the verdict's own reason and hint.
        prompt: The model's system prompt.
        store: Long-term memory; without one, the store the graph was compiled with.
        limits: What bounds the episode.

    """

    def reflect(turn: Turn) -> Flow:
        loop = turn.loop
        verdict = loop["verdict"]
        lesson = (yield from _write(turn)) if model is not None else ""
        # Without a model only what was noticed about the action itself is worth another task's attention.
        earned = bool(lesson) or loop["flaw"] != verdict["reason"] or verdict["decision"] == "revise"
        lesson = _REDACTOR.text(lesson or f"{loop['flaw']} {verdict['hint']}".strip())[:MAX_LESSON_CHARS]
        reflection = Reflection(
            text=lesson, task=_REDACTOR.text(loop["task"]), env=turn.context.env, attempt=loop["attempt"]
        )
        if turn.recorder is not None:
            turn.recorder.reflection(reflection)
        memory = store or turn.runtime.store
        if memory is not None and earned and not turn.context.freeze_memory:
            yield Do(remember, memory, reflection)
        turn.emit("lesson", lesson=lesson)
        change: Loop = {"lessons": add_lesson(loop["lessons"], lesson), "spent": turn.spent}
        if loop["stopped"] != "running":
            return {"cmat": {**change, "next": "__end__"}}
        if stopped := out_of(turn, limits.budget):
            return (yield from finish(turn, stopped, change))
        return {"cmat": {**change, "next": "retry" if loop["done"] else "assistant"}}

    def _write(turn: Turn) -> Generator[Call | Do, Any, str]:
        assert model is not None
        verdict = turn.loop["verdict"]
        why = f"The attempt failed: {said(verdict)}" if turn.loop["done"] else f"This failed: {turn.loop['flaw']}"
        messages: list[Message | AnyMessage] = [
            prompt.fill(turn.context.rules, turn.context.reflect_prompt),
            {"role": "user", "content": f"{conversation(turn.messages)}{transcript(turn.loop)}\n\n{why}\nLesson:"},
        ]
        reply = yield from ask(turn, "reflect", model, messages, limits.budget)
        return " ".join(reply.text.split())[:MAX_LESSON_CHARS]

    return reflect
