"""Reflect: turns what went wrong into a lesson, for the next attempt and for long-term memory."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from langchain_core.messages import AnyMessage

from cmat_graph.memory.shape import LESSON_MAX, flaw_of, is_known, shorten
from cmat_graph.nodes.attempt import Limits, add_lesson, finish, out_of, said
from cmat_graph.nodes.calling import Prompt, Speaker, ask, conversation, transcript
from cmat_graph.nodes.lessons import REDACTOR
from cmat_graph.nodes.seat import Call, Do, Flow, Node, Turn
from cmat_graph.state import Loop
from cmat_graph.types import Message, Reflection

SHAPE = "Write only the lesson: what was tried, why it failed, what to do next time."


def make_reflect(model: Speaker | None, *, prompt: Prompt, limits: Limits) -> Node:
    """Build the node that learns from an environment's error or a failed attempt.

    Args:
        model: Writes the lesson; without one the lesson is the verdict's own reason and hint.
        prompt: The model's system prompt.
        limits: What bounds the episode, and where lessons are kept.

    """

    def reflect(turn: Turn) -> Flow:
        loop = turn.loop
        verdict = loop["verdict"]
        lesson = (yield from _write(turn)) if model is not None else ""
        # Without a model only what was noticed about the action itself is worth another task's attention.
        earned = bool(lesson) or loop["flaw"] != verdict["reason"] or verdict["decision"] == "revise"
        reflection = Reflection(
            text=lesson or shorten(REDACTOR.text(f"{loop['flaw']} {verdict['hint']}")),
            task=REDACTOR.text(loop["task"]),
            env=turn.context.env,
            attempt=loop["attempt"],
            split=turn.context.split,
            episode=loop.get("episode", ""),
            model=model.label if model is not None and lesson else verdict["source"],
            reward=loop.get("last_reward") if loop["done"] else None,
        )
        if turn.recorder is not None:
            turn.recorder.reflection(reflection)
        kept: Loop = (yield from limits.memory.keep(turn, reflection)) if earned else {}
        turn.emit("lesson", lesson=reflection.text)
        change: Loop = {**kept, "lessons": add_lesson(loop["lessons"], reflection.text), "spent": turn.spent}
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
        for _ in range(2):
            reply = yield from ask(turn, "reflect", model, messages, limits.budget)
            text = REDACTOR.text(reply.text).strip()
            flaw = _flaw_of(text, turn.loop)
            if not flaw:
                return shorten(text)
            if out_of(turn, limits.budget):
                break
            messages += [
                {"role": "assistant", "content": text or "(nothing)"},
                {"role": "user", "content": f"This is no new lesson. {flaw} {SHAPE}\nLesson:"},
            ]
        return ""  # then the verdict speaks for itself

    return reflect


def _flaw_of(text: str, loop: Loop) -> str:
    if flaw := flaw_of(text[:LESSON_MAX], loop["task"]):  # what is longer is cut, not refused
        return flaw
    return "It repeats a lesson that was known." if is_known(shorten(text), loop.get("known", [])) else ""
