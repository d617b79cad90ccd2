"""Reflect: turns a failed attempt into a lesson, for the next attempt and for long-term memory."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from cmat_graph.memory.reflections import remember
from cmat_graph.nodes.calling import call_model, system_message, transcript
from cmat_graph.state import CmatState, Node, RunContext, context_of
from cmat_graph.types import Message, Reflection, StopReason

MAX_LESSON_CHARS = 400


def make_reflect(model: BaseChatModel | None, *, prompt: str, store: BaseStore | None, max_attempts: int) -> Node:
    """Build the node that learns from a failed attempt.

    Args:
        model: Writes the lesson; without one the lesson is the verdict's own reason and hint.
        prompt: The model's system prompt.
        store: Long-term memory; without one, the store the graph was compiled with.
        max_attempts: After this many the episode ends.

    """

    def reflect(state: CmatState, runtime: Runtime[RunContext]) -> CmatState:
        context = context_of(runtime)
        lesson = _write(state, runtime) if model is not None else ""
        verdict = state["verdict"]
        # Without a model only what was noticed about the action itself is worth another task's attention.
        earned = bool(lesson) or state["flaw"] != verdict["reason"] or verdict["decision"] == "revise"
        lesson = lesson or f"{state['flaw']} {verdict['hint']}".strip()
        reflection = Reflection(text=lesson, task=state["task"], env=context.env, attempt=state["attempt"])
        if context.recorder is not None:
            context.recorder.reflection(reflection)
        memory = store or runtime.store
        if memory is not None and earned and not context.freeze_memory:
            remember(memory, reflection)
        change: CmatState = {"lessons": list(dict.fromkeys([*state["lessons"], lesson]))[-3:]}
        if state["attempt"] < max_attempts:
            return change
        rejected = verdict["decision"] == "reject" and verdict["phase"] == "before"
        stopped: StopReason = "rejected" if rejected else "attempts"
        return {**change, "stopped": stopped, "messages": [AIMessage(state["answer"])]}

    def _write(state: CmatState, runtime: Runtime[RunContext]) -> str:
        assert model is not None
        verdict = state["verdict"]
        messages: list[Message] = [
            system_message(prompt, context_of(runtime).rules),
            {
                "role": "user",
                "content": f"{transcript(state)}\n\nThe attempt failed: {verdict['reason']} {verdict['hint']}\nLesson:",
            },
        ]
        reply, _ = call_model(model, "reflect", messages, state, runtime)
        return " ".join(reply.split())[:MAX_LESSON_CHARS]

    return reflect
