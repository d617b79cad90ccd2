"""The CMAT state machine: which nodes there are and where each leads.

user -> assistant -> checker -> (approve) -> execute -> checker -> (reflect -> retry -> assistant)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.types import RetryPolicy

from cmat_graph import nodes
from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.ranking import Policy
from cmat_graph.memory.trimming import TokenCounter
from cmat_graph.models.load import load_model
from cmat_graph.nodes.attempt import Limits
from cmat_graph.nodes.calling import PROMPTED, Prompt, Prompts, Speaker
from cmat_graph.nodes.checker import Probe
from cmat_graph.nodes.lessons import Memory
from cmat_graph.nodes.rescue import rescued
from cmat_graph.nodes.seat import Node, Seat
from cmat_graph.nodes.tools import Tool, Toolbox
from cmat_graph.nodes.verdicts import Judgement
from cmat_graph.state import CmatInput, CmatOutput, CmatState, Next, RunContext
from cmat_graph.types import Budget, Phase

Model = BaseChatModel | Runnable[Any, Any] | str
"""A chat model, a compiled graph with messages (such as `create_agent`'s), or the name of a model to load."""


def create_cmat_graph(
    assistant: Model,
    *,
    tools: Sequence[Tool] = (),
    checker: Model | Literal["probes"] | None = None,
    checks: Collection[Phase] = ("before", "after"),
    probes: Sequence[Probe] = (),
    reflector: Model | None = None,
    user: Model | None = None,
    human: Collection[Literal["user", "checker"]] = (),
    store: BaseStore | None = None,
    memory_policy: Policy | None = None,
    max_attempts: int = 3,
    max_revisions: int = 2,
    on_exhausted: Literal["execute", "abort"] = "execute",
    budget: Budget | None = None,
    use_reward: bool = False,
    prompts: Prompts | None = None,
    window_tokens: int = 3_000,
    token_counter: TokenCounter | None = None,
    summarizer: Model | None = None,
    tool_seconds: float = 60.0,
    retry_policy: RetryPolicy | None = RetryPolicy(),
) -> StateGraph[CmatState, RunContext, CmatInput, CmatOutput]:
    """Build the actor-checker-reflect-retry graph; compile it as any LangGraph graph.

    Args:
        assistant: Solves the task: one thought and one action in each turn. A chat model, a name for
            `init_chat_model`, or a whole graph with messages, which then gets checking, memory and recording.
        tools: LangChain tools that the assistant may call; the checker sees each call before it runs.
        checker: Judges actions before they run and attempts after they ran: a model, or `"probes"` for the
            deterministic checks alone. None lets every action run and every answer stand.
        checks: When the checker is asked: `before` an action runs, `after` an attempt.
        probes: Your own read-only checks of a draft; they come before the environment's and before any model.
        reflector: Writes a lesson from an error or a failed attempt; without one the next attempt is told the
            verdict's reason and hint, and long-term memory keeps that if there is one.
        user: Says in a few words what counts as solved; the task itself stays as it is worded.
        human: Where a person takes part through `interrupt()`: `user` is asked for the task when there is none,
            `checker` approves each action before it runs. Needs a checkpointer.
        store: Long-term memory of lessons; without one, the store given to `compile(store=...)`. When it is down, the
            run goes on without lessons.
        memory_policy: Which lessons are recalled, what they are worth, and when they are forgotten.
        max_attempts: Attempts at one task.
        max_revisions: How often one action or answer may be sent back.
        on_exhausted: What happens to an action that is still doubted then: it runs, marked as forced, or the attempt
            ends and it never runs.
        budget: Tokens, seconds or dollars of one episode.
        use_reward: Let the environment's reward decide whether an attempt passed. For training tasks: it looks at
            the gold answer.
        prompts: Your own system prompts: texts or paths by node (`user`, `assistant`, `checker`, `reflect`,
            `summary`), or a folder of `NODE.md` files; `{rules}` is filled in.
        window_tokens: How much of the attempt the assistant is shown, with its task: the newest turns that fit, and
            always the latest one and the latest error. What a model says about its own context bounds it too.
        token_counter: Counts them: what `trim_messages` takes, such as the model itself; None estimates.
        summarizer: Keeps notes on the turns that no longer fit, which the assistant is shown with its task; without
            one it is told how many there were.
        tool_seconds: How long one turn's tool calls may take.
        retry_policy: How calls that fail in transport are repeated; None repeats none.

    Returns:
        The uncompiled graph. Its context is a `RunContext`; its result holds the best answer as the last message and
        everything about the run under `cmat`, with the typed `stopped` reason.

    Raises:
        ConfigurationError: Arguments that cannot work together; the message names the fix.

    Example:
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> graph = create_cmat_graph(ScriptedChatModel(replies=["Four."])).compile()
        >>> result = graph.invoke({"messages": [("user", "What is 2 + 2?")]})
        >>> result["messages"][-1].text, result["cmat"]["stopped"]
        ('Four.', 'passed')

    """
    if max_attempts < 1 or max_revisions < 0 or tool_seconds <= 0 or window_tokens < 1:
        raise ConfigurationError(
            "max_attempts and window_tokens must be at least 1, max_revisions at least 0 and tool_seconds more than 0"
        )
    _check_words("human", human, ("user", "checker"))
    _check_words("checks", checks, ("before", "after"))
    _check_words("on_exhausted", (on_exhausted,), ("execute", "abort"))
    _check_budget(budget)
    toolbox = Toolbox(tools, seconds=tool_seconds) if tools else None
    actor = speaker_for(assistant, tools=toolbox.tools if toolbox else ())
    judge = judge_for(checker) if checker is not None and checker != "probes" else None
    writer = speaker_for(reflector) if reflector is not None else None
    opener = speaker_for(user) if user is not None else None
    memory = Memory(store, memory_policy)
    limits = Limits(
        max_attempts=max_attempts,
        max_revisions=max_revisions,
        on_exhausted=on_exhausted,
        budget=budget,
        memory=memory,
        reflects=writer is not None or store is not None,
    )
    noter = speaker_for(summarizer) if summarizer is not None else None
    prompt = {node: Prompt(node, prompts) for node in PROMPTED}
    seats = {"user": opener, "assistant": actor, "checker": judge, "reflect": writer, "summary": noter}
    roles = {node: f"{seat.label} {prompt[node].version}" for node, seat in seats.items() if seat is not None}
    asks = "checker" in human

    graph = StateGraph(CmatState, RunContext, input_schema=CmatInput, output_schema=CmatOutput)

    def add(name: str, node: Node, policy: RetryPolicy | None = None) -> None:
        graph.add_node(name, Seat(rescued(node, policy)), retry_policy=policy)

    user_node = nodes.make_user(
        opener, prompt=prompt["user"], memory=memory, roles=roles, human="user" in human, budget=budget
    )
    graph.add_node("user", Seat(user_node), retry_policy=retry_policy)  # before it there is no attempt to save
    add(
        "assistant",
        nodes.make_assistant(
            actor,
            prompt=prompt["assistant"],
            window_tokens=window_tokens,
            token_counter=token_counter,
            sum_up=nodes.make_summary(noter, prompt=prompt["summary"], budget=budget) if noter is not None else None,
            budget=budget,
        ),
        retry_policy,
    )
    add(
        "checker",
        nodes.make_checker(
            judge,
            active=checker is not None,
            phases=checks,
            prompt=prompt["checker"],
            limits=limits,
            probes=probes,
            toolbox=toolbox,
            use_reward=use_reward,
            reflects_on_errors=writer is not None,
            approved="approve" if asks else "execute",
        ),
        retry_policy,
    )
    if asks:
        add("approve", nodes.make_approve(limits=limits))
    add("execute", nodes.make_execute(toolbox, store))
    add("reflect", nodes.make_reflect(writer, prompt=prompt["reflect"], limits=limits), retry_policy)
    add("retry", nodes.make_retry())

    graph.add_edge(START, "user")
    graph.add_edge("user", "assistant")
    graph.add_edge("assistant", "checker")
    gate = "approve" if asks else "execute"
    graph.add_conditional_edges("checker", where_next, ["assistant", gate, "reflect", "retry", END])
    if asks:
        graph.add_conditional_edges("approve", where_next, ["assistant", "execute", "reflect", "retry", END])
    graph.add_edge("execute", "checker")
    graph.add_conditional_edges("reflect", where_next, ["assistant", "retry", END])
    graph.add_edge("retry", "assistant")
    return graph


def _check_words(name: str, given: Collection[str], known: tuple[str, ...]) -> None:
    if isinstance(given, str):
        raise ConfigurationError(f"{name} is a list of words, not one: {name}=({given!r},)")
    if unknown := set(given) - set(known):
        raise ConfigurationError(f"{name} does not know {min(unknown)!r}; known: {', '.join(known)}")


def _check_budget(budget: Budget | None) -> None:
    if budget is None:
        return
    for name in ("tokens", "seconds", "cost"):
        limit = getattr(budget, name)
        if limit is not None and not limit > 0:
            raise ConfigurationError(
                f"a budget of {name}={limit} allows nothing; give more than 0, or None for no limit"
            )
    if budget.cost is not None and not budget.prices:
        raise ConfigurationError('a cost budget needs prices: Budget(cost=1.0, prices={"model": (in, out)})')


def where_next(state: CmatState) -> Next:
    """Follow what the node decided."""
    return state["cmat"]["next"]


def speaker_for(model: Model, *, tools: Sequence[Any] = ()) -> Speaker:
    """Open whatever may sit in a seat."""
    if isinstance(model, str):
        return Speaker(load_model(model), tools=tools, label=model)
    if not isinstance(model, Runnable):
        raise ConfigurationError(
            f"{type(model).__name__} is no model: give a chat model, a compiled graph with messages, or a model's name"
        )
    return Speaker(model, tools=tools)


def judge_for(model: Model) -> Speaker:
    """Let a checker that can call tools answer through one; any other answers in text."""
    plain = speaker_for(model)
    bind = getattr(plain.runnable, "bind_tools", None)
    if plain.is_graph or bind is None:
        return plain
    try:
        return Speaker(bind([Judgement], tool_choice="any"), label=plain.label)
    except Exception:  # each provider has its own way to say that it takes no tools, or none by force
        return plain
