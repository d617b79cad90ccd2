"""The Assistant: thinks, then writes one action (ReAct)."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel
from langgraph.runtime import Runtime

from cmat_graph.memory.short_term import window
from cmat_graph.nodes.calling import call_model, system_message, task_message
from cmat_graph.state import CmatState, Node, RunContext, context_of
from cmat_graph.types import Message


def make_assistant(model: BaseChatModel, *, prompt: str, window_chars: int) -> Node:
    """Build the node that drafts the next action."""

    def assistant(state: CmatState, runtime: Runtime[RunContext]) -> CmatState:
        rules = context_of(runtime).rules
        fits = getattr(model, "context_chars", window_chars)  # a local model knows how little it can read
        recent, left_out = window(state["trajectory"], max_chars=min(window_chars, fits - len(state["task"])))
        messages = [system_message(prompt, rules), task_message(state, left_out=left_out), *recent]
        draft, step_id = call_model(model, "assistant", messages, state, runtime)
        turn: Message = {"role": "assistant", "content": draft}
        return {"draft": draft, "step_id": step_id, "trajectory": [*state["trajectory"], turn]}

    return assistant
