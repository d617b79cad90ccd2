"""Who sits in which node over one base: what an arm of a comparison is, and what an improvement changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseChatModel

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import ConfigurationError
from cmat_graph.graph import create_cmat_graph
from cmat_graph.models.load import load_model
from cmat_graph.rollout import Graph

SEATS = ("assistant", "checker", "reflect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A base, and the adapters on it by node. The base alone plays the assistant where there is none for it."""

    base: str = "nano"
    adapters: dict[str, AdapterCard] = field(default_factory=dict)
    attempts: int = 1
    """Attempts at one task."""
    probes: bool = False
    """Whether the deterministic checks gate actions where no model sits in the checker's seat."""
    bare: tuple[str, ...] = ()
    """Other seats that the base itself takes where there is no adapter: `checker`, `reflect`."""

    @classmethod
    def serving(cls, registry: AdapterRegistry, base: str = "nano", **settings: Any) -> Team:
        """Return the team of what is promoted for each node."""
        cards = {node: card for node in SEATS if (card := registry.serving(node)) is not None}
        return cls(base=base, adapters=cards, **settings)

    @classmethod
    def of(cls, names: Sequence[str], registry: AdapterRegistry, base: str = "nano", **settings: Any) -> Team:
        """Return the team of named adapters, each in the seat that it was trained for.

        Args:
            names: As `AdapterRegistry.get` takes them: `node/name`, a name, or a node.
            registry: Where they lie.
            base: Who plays the assistant, where no adapter does.
            **settings: Of the team.

        Raises:
            AdapterNotFoundError: There is no such adapter.
            ConfigurationError: It was trained for no seat of this graph, two would share one, or a bare name is that of
                several.

        """
        team = cls(base=base, **settings)
        for name in names:
            several = sorted({card.id for card in registry.list() if card.name == name})
            if len(several) > 1:
                raise ConfigurationError(f"{name!r} may be any of {', '.join(several)}; say which")
            card = registry.get(name)
            if (other := team.adapters.get(card.node)) is not None:
                raise ConfigurationError(f"{other.id} and {card.id} are both for the {card.node}'s seat; name one")
            team = team.with_adapter(card.node, card)
        return team

    def with_adapter(self, node: str, card: AdapterCard | None) -> Team:
        """Return the same team with another adapter in one seat, or with none.

        Raises:
            ConfigurationError: There is no such seat.

        """
        if node not in SEATS:
            raise ConfigurationError(f"no seat {node!r} to put an adapter in; seats: {', '.join(SEATS)}")
        others = {seat: each for seat, each in self.adapters.items() if seat != node}
        return replace(self, adapters=others if card is None else {**others, node: card})

    @property
    def label(self) -> str:
        """Name it by what answers: the same label plays the same way."""
        seats = [f"{node}={card.name}@{card.weights_hash[:8]}" for node, card in sorted(self.adapters.items())]
        base = self.base.rstrip("/").split("/")[-1]
        return " ".join([base, *seats, *self.bare, *(["probes"] if self.probes else []), f"x{self.attempts}"])[:200]

    def model(self, node: str, registry: AdapterRegistry, **settings: Any) -> BaseChatModel:
        """Load what sits in a seat: an adapter on its own base, or the team's base."""
        card = self.adapters.get(node)
        if card is None:
            return load_model(self.base, **settings)
        return load_model(card.base, adapter=card, adapters=registry, **settings)

    def graph(self, registry: AdapterRegistry, *, use_reward: bool = False, **settings: Any) -> Graph:
        """Build its graph.

        Args:
            registry: Where the adapters lie.
            use_reward: Let the reward decide whether an attempt passed; for training tasks.
            **settings: Passed to the assistant's model, such as `temperature`.

        """
        taken = {*self.adapters, *self.bare}
        checker = self.model("checker", registry) if "checker" in taken else None
        return create_cmat_graph(
            self.model("assistant", registry, **settings),
            checker=checker or ("probes" if self.probes else None),
            reflector=self.model("reflect", registry) if "reflect" in taken else None,
            max_attempts=self.attempts,
            use_reward=use_reward,
        ).compile()
