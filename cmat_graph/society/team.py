"""Which adapters sit in the seats of a society."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmat_graph.adapters import AdapterCard

Seat = AdapterCard | None
"""An adapter, or the bare base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The agents of a society: 2N adapters on one base, or fewer where agents are the same."""

    generators: tuple[Seat, ...]
    critics: tuple[Seat, ...]
    """By agent; the same length."""

    @classmethod
    def of_one(cls, card: Seat, agents: int) -> Team:
        """Let one model, or the bare base, sit in every seat."""
        return cls(generators=(card,) * agents, critics=(card,) * agents)

    @property
    def seats(self) -> dict[str, Seat]:
        """Return who sits where, by node."""
        return {f"generator-{i}": card for i, card in enumerate(self.generators)} | {
            f"critic-{i}": card for i, card in enumerate(self.critics)
        }

    def seat(self, cards: Mapping[str, AdapterCard], *, critics_follow: bool = False) -> Team:
        """Put new adapters into their seats; who has none stays.

        Args:
            cards: The new ones, by node.
            critics_follow: Let each generator speak in the later rounds as well (no critic is trained).

        """
        generators = tuple(cards.get(f"generator-{i}", card) for i, card in enumerate(self.generators))
        critics = tuple(cards.get(f"critic-{i}", card) for i, card in enumerate(self.critics))
        return Team(generators=generators, critics=generators if critics_follow else critics)

    def keys(self) -> dict[str, str]:
        """Return the keys of the adapters that sit here, by node."""
        return {node: card.key for node, card in self.seats.items() if card is not None}
