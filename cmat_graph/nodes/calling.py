"""The one place where a node calls a model and records the call, and the texts it is called with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.resources import files

from langchain_core.language_models import BaseChatModel
from langgraph.runtime import Runtime

from cmat_graph.state import CmatState, RunContext, context_of
from cmat_graph.types import Message


def load_prompt(node: str, prompts: Mapping[str, str] | None = None) -> str:
    """Return a node's system prompt: the caller's own, else the file that ships."""
    if prompts and node in prompts:
        return prompts[node]
    return files("cmat_graph.nodes").joinpath("prompts", f"{node}.md").read_text(encoding="utf-8")


def system_message(template: str, rules: str) -> Message:
    """Fill a system prompt."""
    return {"role": "system", "content": template.replace("{rules}", rules).strip()}


def task_message(state: CmatState, *, left_out: int = 0) -> Message:
    """Word the task with its lessons. Lessons are data: they stay out of the system prompt."""
    content = state["task"]
    if lessons := state.get("lessons"):
        content += "\n\nLessons from earlier attempts:\n" + "\n".join(f"- {_one_line(lesson)}" for lesson in lessons)
    if left_out:
        content += f"\n\n[{left_out} earlier messages were left out]"
    return {"role": "user", "content": content}


def transcript(state: CmatState) -> str:
    """Write out the task and this attempt's turns, for a node that judges them."""
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in [task_message(state), *state["trajectory"]])


def call_model(
    model: BaseChatModel, node: str, messages: list[Message], state: CmatState, runtime: Runtime[RunContext]
) -> tuple[str, int]:
    """Call a model for a node; return its text and the id of the recorded step (0 without a recorder)."""
    start = time.perf_counter()
    reply = model.invoke([(message["role"], message["content"]) for message in messages])
    seconds = time.perf_counter() - start
    text = str(reply.text)
    recorder = context_of(runtime).recorder
    if recorder is None:
        return text, 0
    usage = reply.usage_metadata
    step_id = recorder.step(
        node=node,
        attempt=state.get("attempt", 1),
        messages=messages,
        completion=text,
        input_tokens=usage["input_tokens"] if usage else 0,
        output_tokens=usage["output_tokens"] if usage else 0,
        seconds=seconds,
        model=str(reply.response_metadata.get("model_name", "")) or model._llm_type,
        adapter=str(reply.response_metadata.get("adapter", "")),
    )
    return text, step_id


def _one_line(text: str) -> str:
    return " ".join(text.split())
