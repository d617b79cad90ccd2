"""The Assistant: thinks, then writes one action (ReAct) or calls a tool."""

from __future__ import annotations

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from cmat_graph.memory.short_term import window
from cmat_graph.nodes.calling import Prompt, Speaker, ask, task_message
from cmat_graph.nodes.seat import Flow, Node, Turn
from cmat_graph.nodes.user import find_task
from cmat_graph.types import Budget, Message


def make_assistant(model: Speaker, *, prompt: Prompt, window_chars: int, budget: Budget | None) -> Node:
    """Build the node that drafts the next action.

    A graph in this seat keeps its own system prompt; it is shown the conversation, the task and this attempt's turns.
    """

    def assistant(turn: Turn) -> Flow:
        loop, context = turn.loop, turn.context
        fits = window_chars if model.context_chars is None else min(window_chars, model.context_chars)
        recent, left_out = window(loop["trajectory"], max_chars=fits - len(loop["task"]))
        _, at = find_task(turn.messages)
        earlier: list[AnyMessage] = turn.messages[:at]
        task = task_message(loop, left_out=left_out, rules=context.rules if model.is_graph else "")
        messages: list[Message | AnyMessage] = [
            *earlier,
            _with_attachments(task, turn.messages[at:]),
            *turn.messages[at + 1 :],
            *recent,
        ]
        if not model.is_graph:
            own = prompt.fill(context.rules, context.assistant_prompt)
            if earlier and isinstance(earlier[0], SystemMessage):  # the app's own system prompt goes on in ours
                messages[0] = SystemMessage(f"{earlier[0].text}\n\n{own.text}")
            else:
                messages.insert(0, own)
        reply = yield from ask(turn, "assistant", model, messages, budget)
        if model.is_graph:  # what its last turn called is its own matter, and done
            reply.message.pop("tool_calls", None)
            reply.message.pop("garbled", None)
        return {
            "cmat": {
                "draft": reply.message,
                "step": reply.step,
                "trajectory": [*loop["trajectory"], reply.message],
                "spent": turn.spent,
            }
        }

    return assistant


def _with_attachments(task: Message, given: list[AnyMessage]) -> Message | AnyMessage:
    """Keep the images and files that came with the task."""
    content = given[0].content if given else ""
    if isinstance(content, str):
        return task
    attached = [part for part in content if not isinstance(part, str) and part.get("type") != "text"]
    return HumanMessage([{"type": "text", "text": task["content"]}, *attached]) if attached else task
