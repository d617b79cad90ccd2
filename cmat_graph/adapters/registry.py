"""The adapter registry: a folder of adapters by node and name, and which of them answers for its node."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from cmat_graph.adapters import history
from cmat_graph.adapters.card import CARD, AdapterCard, check_name, is_name, read_card, write_aside, write_card
from cmat_graph.adapters.history import Promotion
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError

logger = logging.getLogger(__name__)

CURRENT = "current"


class AdapterRegistry:
    """A folder of adapters, by node and name.

    Example:
        >>> AdapterRegistry("adapters/").list()
        []

    """

    def __init__(self, root: str | os.PathLike[str] = "adapters") -> None:
        self.root = Path(root)

    def list(self, node: str | None = None) -> list[AdapterCard]:
        """Return all cards, oldest first; one that cannot be read is left out with a warning."""
        if node is not None:
            check_name(node)
        found = []
        for file in self.root.glob(f"{node or '*'}/[!.]*/{CARD}"):
            try:
                found.append(read_card(file.parent))
            except AdapterNotFoundError as exc:
                logger.warning("%s", exc)
        return sorted(found, key=lambda card: card.created)

    def get(self, name: str) -> AdapterCard:
        """Return a card by `node/name`, by its name alone, or by a node: then the promoted or else the newest one.

        A folder's path names the adapter in it, here or elsewhere.

        Raises:
            AdapterNotFoundError: There is none; the message lists those there are. So it is for a node that was
                rolled back to its base.

        """
        parts = name.split("/")
        inside = [self.root / name] if len(parts) == 2 and all(map(is_name, parts)) else []
        for folder in (*inside, Path(name)):
            if (folder / CARD).is_file():
                return read_card(folder)
        cards = self.list()
        matches = [card for card in cards if name in (card.id, card.name)]
        if not matches:
            of_node = [card for card in cards if card.node == name]
            current = self.current(name) if of_node else None
            if current == "":
                raise AdapterNotFoundError(
                    f"{name} was rolled back to its base; name one of its adapters: "
                    f"{', '.join(card.id for card in of_node)}, or promote one"
                )
            matches = [card for card in of_node if card.name == current] or of_node
        if not matches:
            known = ", ".join(card.id for card in cards) or "none yet; make one with: cmat-graph distill"
            raise AdapterNotFoundError(f"no adapter {name!r} in {self.root}; known: {known}")
        return matches[-1]

    def find(self, node: str, name: str) -> AdapterCard | None:
        """Return the adapter of that node and name if it lies in this registry, and nowhere else; else None."""
        for each in (node, name):
            check_name(each)
        folder = self.root / node / name
        return read_card(folder) if (folder / CARD).is_file() else None

    def lineage(self, card: AdapterCard) -> Sequence[AdapterCard]:
        """Return an adapter and those of this registry that its training went on from, the newest first."""
        line = [card]
        while (before := line[-1].init.partition("@")[0]) and before not in {each.id for each in line}:
            found = self.find(*before.split("/", 1)) if before.count("/") == 1 else None
            if found is None:
                break
            line.append(found)
        return line

    def current(self, node: str) -> str | None:
        """Return the name of a node's promoted adapter; None before the first, empty after a roll back to the base."""
        check_name(node)
        pointer = self.root / node / CURRENT
        return pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None

    def serving(self, node: str) -> AdapterCard | None:
        """Return the card of a node's promoted adapter; None where the base answers alone.

        Raises:
            AdapterNotFoundError: What is promoted is gone or cannot be read.

        """
        current = self.current(node)
        return self.get(f"{node}/{current}") if current else None

    def promote(self, card: AdapterCard, *, why: str = "by hand") -> None:
        """Make an adapter the current one of its node; what was before can be had back with `rollback`."""
        check_name(card.name)
        before = self.current(card.node) or ""
        self._change(
            card.node,
            Promotion(event="promoted", name=card.name, before=before, weights=card.weights_hash[:12], why=why),
        )

    def rollback(self, node: str, *, why: str = "by hand") -> AdapterCard | None:
        """Take the promoted adapter of a node away, and put the one before it in its place.

        An adapter that is no longer in the registry is passed over.

        Returns:
            The adapter that answers now; None: the base alone.

        Raises:
            ConfigurationError: Nothing is promoted.

        """
        current = self.current(node)
        if not current:
            raise ConfigurationError(f"nothing is promoted for {node} in {self.root}; there is nothing to roll back")
        known = {card.name: card for card in self.list(node)}
        below = history.standing(self.history(node))
        while below and below[-1] == current:
            below.pop()
        while below and below[-1] not in known:
            below.pop()
        card = known[below[-1]] if below else None
        weights = card.weights_hash[:12] if card else ""
        name = card.name if card else ""
        self._change(node, Promotion(event="rolled back", name=name, before=current, weights=weights, why=why))
        return card

    def history(self, node: str) -> Sequence[Promotion]:
        """Return what was promoted and rolled back for a node, oldest first."""
        check_name(node)
        return history.read(self.root / node)

    def _change(self, node: str, change: Promotion) -> None:
        """Write the history first, then the pointer, until both agree: the last line wins, whoever wrote it."""
        check_name(node)
        folder = self.root / node
        folder.mkdir(parents=True, exist_ok=True)
        history.append(folder, change)
        written = None
        while (last := history.read(folder)[-1].name) != written:
            write_aside(folder / CURRENT, last + "\n")
            written = last

    def add(self, card: AdapterCard, write: Callable[[Path], AdapterCard]) -> AdapterCard:
        """Register an adapter: `write` puts its files into a folder and returns its final card.

        The adapter becomes visible only when all went well; one of the same name stays until then.

        Raises:
            ConfigurationError: Its name or its node's holds characters of a path.

        """
        check_name(card.node)
        check_name(card.name)
        target = self.root / card.node / card.name
        aside = self.root / card.node / f".{card.name}-{uuid.uuid4().hex[:8]}"
        old = aside.with_name(f"{aside.name}-old")
        aside.mkdir(parents=True)
        try:
            write_card(aside, write(aside))
            if target.exists():
                os.replace(target, old)
            os.replace(aside, target)
        finally:
            if old.exists() and not target.exists():
                os.replace(old, target)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        return read_card(target)

    def update(self, card: AdapterCard) -> AdapterCard:
        """Write a changed card, such as one with new scores, where the adapter lies."""
        write_card(Path(card.folder), card)
        return card
