"""The debate as a graph.

user -> generator-* -> moderator -> (summary-* -> critic-* -> moderator)* -> vote
"""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph

from cmat_graph.debate.prompts import PromptPack
from cmat_graph.debate.rounds import DebateSettings, Mode, Rules
from cmat_graph.debate.seats import Model, Models, Seats
from cmat_graph.debate.speaking import Voice
from cmat_graph.debate.state import DebateInput, DebateState
from cmat_graph.debate.table import Table


def create_debate_graph(
    generators: Models,
    critics: Models | None = None,
    *,
    agents: int | None = None,
    rounds: int = 2,
    summariser: Model | None = None,
    summarise: bool = True,
    pack: str | PromptPack = "arithmetic",
    mode: Mode = "critique",
    stop_when_unanimous: bool = False,
    most_solutions: int = 5,
    seed: int = 0,
    human: bool = False,
) -> StateGraph[DebateState, None, DebateInput, DebateState]:
    """Build a debate: generators answer, critics answer again with the others' answers before them, the majority wins.

    Compile it as any LangGraph graph: messages in, messages out, so that it can stand wherever a graph or a runnable
    can. The last human message is the question, what came before it is told to every agent. A call that fails costs
    its agent the turn, not the debate.

    Args:
        generators: One model for each agent, or one that plays all. A chat model, a compiled graph with messages, or
            a name, as for `cmat_graph.models.load_model`; local models that are named draw at temperature 1.
        critics: The same, for the rounds after the first; None lets the generators speak again.
        agents: How many there are, where one model plays all; by default 3. One alone checks itself.
        rounds: With the generators' one.
        summariser: Sums the others' solutions up for each critic; None takes the bare base of the first generator
            where that is a `TinyAgent`, and the generator itself where one model plays all.
        summarise: False shows critics the solutions themselves.
        pack: The prompts, or their name: `arithmetic`, `gsm8k`, `math`, `choice`, `open`, `verdict`.
        mode: `critique`, `cooperate` or `identity`; see `DebateSettings`.
        stop_when_unanimous: End after a round in which all gave the same answer.
        most_solutions: Without summaries: of more solutions than these each critic is shown so many.
        seed: Draws ties and orders, and the replies of local models.
        human: A person decides in place of the vote, through `interrupt()`. Needs a checkpointer.

    Returns:
        The uncompiled graph. Its result holds a reply that gave the consensus as the last message, and everything
        about the debate under `debate`.

    Raises:
        ConfigurationError: Arguments that cannot work together; the message names the fix.

    Example:
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> society = create_debate_graph(ScriptedChatModel(replies=["Answer: 4"])).compile()
        >>> result = society.invoke({"messages": [("user", "What is 2 + 2?")]})
        >>> result["messages"][-1].text, result["debate"]["answer"], result["debate"]["vote"]["share"]
        ('Answer: 4', '4', 1.0)

    """
    settings = DebateSettings(
        rounds=rounds,
        summarise=summarise,
        mode=mode,
        stop_when_unanimous=stop_when_unanimous,
        most_solutions=most_solutions,
        seed=seed,
    )
    seats = Seats.of(generators, critics, summariser, agents=agents, summarise=summarise and rounds > 1)
    rules = Rules.of(settings, pack, len(seats.generators))
    table = Table(rules, seats.told(rounds), human=human)
    each = range(rules.agents)

    graph = StateGraph(DebateState, input_schema=DebateInput, output_schema=DebateState)
    graph.add_node("user", table.user)
    graph.add_node("moderator", table.moderator)
    graph.add_node("vote", table.vote)
    graph.add_edge(START, "user")
    graph.add_edge("vote", END)

    def seat(role: str, model: Runnable[Any, Any], agent: int) -> str:
        graph.add_node(name := f"{role}-{agent}", Voice(model, rules))
        return name

    speaking = [seat("generator", seats.generators[i], i) for i in each]
    graph.add_conditional_edges("user", table.open, speaking)
    graph.add_edge(speaking, "moderator")  # a barrier: it waits for all of them
    if rounds == 1:
        graph.add_edge("moderator", "vote")
        return graph
    judging = [seat("critic", seats.critics[i], i) for i in each]
    noting = []
    if seats.summariser is not None and summarise and rules.agents > 1:
        noting = [seat("summary", seats.summariser, i) for i in each]
        for i in each:
            graph.add_conditional_edges(noting[i], table.criticise(i), [judging[i]])
    graph.add_edge(judging, "moderator")
    graph.add_conditional_edges("moderator", table.go_on, [*noting, *judging, "vote"])
    return graph
