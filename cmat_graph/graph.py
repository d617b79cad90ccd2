"""The CMAT state machine: which nodes there are and where each leads.

user -> assistant -> checker -> execute -> checker -> (reflect -> retry -> assistant)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from langchain_core.language_models import BaseChatModel
from langgraph.graph import START, StateGraph
from langgraph.store.base import BaseStore

from cmat_graph import nodes
from cmat_graph.errors import ConfigurationError
from cmat_graph.nodes.calling import load_prompt
from cmat_graph.state import CmatInput, CmatState, RunContext


def create_cmat_graph(
    assistant: BaseChatModel,
    *,
    checker: BaseChatModel | Literal["probes"] | None = None,
    reflector: BaseChatModel | None = None,
    store: BaseStore | None = None,
    max_attempts: int = 3,
    max_revisions: int = 2,
    use_reward: bool = False,
    prompts: Mapping[str, str] | None = None,
    window_chars: int = 12_000,
) -> StateGraph[CmatState, RunContext, CmatInput, CmatState]:
    """Build the actor-checker-reflect-retry graph; compile it as any LangGraph graph.

    Args:
        assistant: Solves the task: one thought and one action in each turn.
        checker: Judges actions before they run and attempts after they ran: a chat model, or `"probes"` for the
            environment's read-only checks alone. None lets every action run.
        reflector: Writes a lesson from a failed attempt; without one the lesson is the verdict's reason and hint.
        store: Long-term memory of lessons; without one, the store given to `compile(store=...)`.
        max_attempts: Attempts at one task.
        max_revisions: How often one action may be sent back before it runs as it is.
        use_reward: Let the environment's reward decide whether an attempt passed. For training tasks: it looks at
            the gold answer.
        prompts: Your own system prompts by node name (`assistant`, `checker`, `reflect`); `{rules}` is filled in.
        window_chars: Longest trajectory shown to the assistant, in characters.

    Returns:
        The uncompiled graph. Its context is a `RunContext`.

    Raises:
        ConfigurationError: A limit is out of range.

    Example:
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> graph = create_cmat_graph(ScriptedChatModel(replies=["Four."])).compile()
        >>> graph.invoke({"messages": [("user", "What is 2 + 2?")]})["messages"][-1].text
        'Four.'

    """
    if max_attempts < 1 or max_revisions < 0:
        raise ConfigurationError("max_attempts must be at least 1 and max_revisions at least 0")
    check = nodes.make_checker(
        checker, prompt=load_prompt("checker", prompts), max_revisions=max_revisions, use_reward=use_reward
    )
    reflect = nodes.make_reflect(
        reflector, prompt=load_prompt("reflect", prompts), store=store, max_attempts=max_attempts
    )
    graph = StateGraph(CmatState, RunContext, input_schema=CmatInput)
    graph.add_node("user", nodes.make_user(store))
    graph.add_node(
        "assistant",
        nodes.make_assistant(assistant, prompt=load_prompt("assistant", prompts), window_chars=window_chars),
    )
    graph.add_node("checker", check)
    graph.add_node("execute", nodes.make_execute())
    graph.add_node("reflect", reflect)
    graph.add_node("retry", nodes.make_retry())
    graph.add_edge(START, "user")
    graph.add_edge("user", "assistant")
    graph.add_edge("assistant", "checker")
    graph.add_conditional_edges("checker", after_checker)
    graph.add_edge("execute", "checker")
    graph.add_conditional_edges("reflect", after_reflect)
    graph.add_edge("retry", "assistant")
    return graph


def after_checker(state: CmatState) -> Literal["assistant", "execute", "reflect", "__end__"]:
    """Lead on from a verdict."""
    if state["stopped"] == "passed":
        return "__end__"
    verdict = state["verdict"]
    if verdict["decision"] == "reject" or state["done"]:
        return "reflect"
    if verdict["phase"] == "before" and verdict["decision"] == "approve":
        return "execute"
    return "assistant"


def after_reflect(state: CmatState) -> Literal["retry", "__end__"]:
    """Try again, or end with what there is."""
    return "retry" if state["stopped"] == "running" else "__end__"
