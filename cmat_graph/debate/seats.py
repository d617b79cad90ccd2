"""Who sits in which seat of a debate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.load import load_model

Model = BaseChatModel | Runnable[Any, Any] | str
"""A chat model, a compiled graph with messages, or the name of a model to load."""
Models = Model | Sequence[Model]
AGENTS = 3
TEMPERATURE, TOP_P = 1.0, 0.9
"""How a local model that is named draws: agents that always say what is most likely would all say the same."""

_RARE = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seats:
    """The models of a debate, by agent."""

    generators: tuple[Runnable[Any, Any], ...]
    critics: tuple[Runnable[Any, Any], ...]
    summariser: Runnable[Any, Any] | None

    @classmethod
    def of(
        cls,
        generators: Models,
        critics: Models | None = None,
        summariser: Model | None = None,
        *,
        agents: int | None = None,
        summarise: bool = True,
    ) -> Seats:
        """Take the seats.

        Args:
            generators: One for each agent, or one model that plays all.
            critics: The same; None lets the generators speak again.
            summariser: Sums solutions up; None takes the bare base of the first generator where that is a `TinyAgent`,
                and the generator itself where one model plays all.
            agents: How many there are, where one model plays all; by default 3.
            summarise: Whether a summariser is needed.

        Raises:
            ConfigurationError: The numbers differ, or there is no summariser.
            ModelNotFoundError: A name is unknown.

        """
        opened: dict[Any, Runnable[Any, Any]] = {}

        def take(model: Model) -> Runnable[Any, Any]:
            key = model if isinstance(model, str) else id(model)
            if key not in opened:
                opened[key] = _load(model) if isinstance(model, str) else _voice(model)
            return opened[key]

        first = _each(generators, agents, "generators")
        second = first if critics is None else _each(critics, len(first), "critics")
        speaking, judging = tuple(map(take, first)), tuple(map(take, second))
        noter: Runnable[Any, Any] | None = None
        if summariser is not None:
            noter = take(summariser)
        elif summarise and len(speaking) > 1:
            noter = _base_of(speaking)
        return cls(generators=speaking, critics=judging, summariser=noter)

    @property
    def base(self) -> Runnable[Any, Any]:
        """The first generator without its adapter, where it is a `TinyAgent`, else the first generator."""
        return _bare(self.generators[0])

    def of_node(self, role: str, agent: int) -> Runnable[Any, Any]:
        """Return who sits in a seat."""
        if role == "summary":
            assert self.summariser is not None
            return self.summariser
        return (self.generators if role == "generator" else self.critics)[agent]

    def told(self, rounds: int) -> dict[str, str]:
        """Name the models by node, as they are recorded."""
        several = rounds > 1
        named = {f"generator-{i}": label_of(model) for i, model in enumerate(self.generators)}
        named |= {f"critic-{i}": label_of(model) for i, model in enumerate(self.critics) if several}
        if self.summariser is not None and several:
            named["summary"] = label_of(self.summariser)
        return named


def label_of(model: Any) -> str:
    """Name a model with all that makes its replies differ."""
    while hasattr(model, "bound"):
        model = model.bound
    name = str(getattr(model, "model_name", "") or getattr(model, "model", "") or getattr(model, "name", "") or "")
    if not hasattr(model, "begin"):
        return name or str(getattr(model, "_llm_type", type(model).__name__))
    about = model._identifying_params
    base = "@".join(filter(None, (about["model_name"], about["base_hash"])))
    drawn = f"t={about['temperature']:g} p={about['top_p']:g} n={about['max_tokens']}"
    rare = [f"{name}={about[name]:g}" for name, usual in _RARE.items() if about[name] != usual]
    return " ".join(filter(None, (base, about["adapter"], drawn, *rare)))


def is_local(model: Any) -> bool:
    """Tell whether a model takes seeds, and begins many calls before it waits: a `TinyAgent`."""
    return hasattr(model, "begin")


def _each(models: Models, agents: int | None, what: str) -> list[Model]:
    if isinstance(models, str) or not isinstance(models, Sequence):
        return [models] * (AGENTS if agents is None else agents)
    given = list(models)
    if len(given) != (agents or len(given)):
        raise ConfigurationError(
            f"{len(given)} {what} for {agents} agents; give one for each agent, or one model that plays all"
        )
    return given


def _load(name: str) -> Runnable[Any, Any]:
    if ":" in name:
        return load_model(name)
    return load_model(name, temperature=TEMPERATURE, top_p=TOP_P)


def _base_of(speaking: Sequence[Runnable[Any, Any]]) -> Runnable[Any, Any]:
    if is_local(speaking[0]) or all(model is speaking[0] for model in speaking):
        return _bare(speaking[0])
    raise ConfigurationError(
        "nobody sums the solutions up: give summariser=MODEL, or summarise=False to show the solutions themselves"
    )


def _bare(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    local: Any = model
    return local.model_copy(update={"adapter": ""}) if is_local(model) and local.adapter else model


def _voice(model: Model) -> Runnable[Any, Any]:
    """Let a whole graph with messages speak as a chat model does."""
    if isinstance(model, BaseChatModel):
        return model
    if not isinstance(model, Runnable):
        raise ConfigurationError(
            f"{type(model).__name__} is no model: give a chat model, a compiled graph with messages, or a model's name"
        )
    from cmat_graph.nodes.calling import Speaker

    speaker = Speaker(model)
    if not speaker.is_graph:
        return model
    graph: Runnable[Any, Any] = RunnableLambda(_to_state) | speaker.runnable | RunnableLambda(_last_reply)
    return graph.with_config(run_name=speaker.label)


def _to_state(messages: Any) -> dict[str, Any]:
    return {"messages": messages}


def _last_reply(state: Any) -> AIMessage:
    found = [message for message in state["messages"] if isinstance(message, AIMessage)]
    return found[-1] if found else AIMessage("")
