"""Which models a server offers: the base, what is loaded on it, and what its registry holds."""

from __future__ import annotations

import builtins
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import AdapterNotFoundError
from cmat_graph.models.serving.adapters import LocalAdapters
from cmat_graph.models.serving.refusals import Refusal

if TYPE_CHECKING:
    from cmat_graph.models.decoding.rows import ChatEngine

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Catalogue:
    """The names that clients may give as `model`, and the folder that adapters may come from.

    A name from outside is compared with those that are there; as a path it is never taken.
    """

    def __init__(self, engine: ChatEngine, registry: AdapterRegistry) -> None:
        self.base = base_name(engine.base)
        self._engine = engine
        self._registry = registry
        self._adapters = LocalAdapters(engine)
        self._since = int(time.time())

    def find(self, model: str) -> str:
        """Return the loaded name that a request's model means, loading it if need be; empty for the base.

        Raises:
            Refusal: There is none.

        """
        if model in (self.base, self._engine.base):
            return ""
        loaded = self._loaded()
        if model in loaded:
            return model
        if (promoted := self._promoted(model)) in loaded:
            return promoted
        card = self._registered(model, promoted)
        if card.is_full:
            raise _unknown(model, f"{card.id} is a whole model, no adapter of {self.base}; serve its folder by itself")
        return card.id if card.id in loaded else self._adapters.load(card)

    def load(self, name: str, path: str, *, again: bool) -> None:
        """Load an adapter's folder under a name.

        Raises:
            Refusal: The folder is outside the registry, or the name is taken or another adapter's own.
            AdapterNotFoundError: There is no adapter in it.

        """
        if name in (self.base, self._engine.base):
            raise Refusal(400, f"{name!r} is the base; choose another name", param="lora_name")
        if name in self._loaded() and not again:
            raise Refusal(
                400, f"the adapter {name!r} is loaded already; replace it with load_inplace", param="lora_name"
            )
        card = self._card_at(path)
        if name != card.id and any(name == each.id for each in self._cards()):
            raise Refusal(400, f"{name!r} is another adapter's own name; choose another", param="lora_name")
        self._adapters.load(card, name=name)

    def unload(self, name: str) -> None:
        """Unload what has this name.

        Raises:
            AdapterNotFoundError: Nothing has.

        """
        self._adapters.unload(name)

    def list(self) -> builtins.list[dict[str, Any]]:
        """Return all models as OpenAI and vLLM list them; `loaded` tells which adapters answer at once."""
        loaded = {each.name: each for each in self._engine.adapters() if each.name != each.key}
        found = [self._entry(self.base, self._since, root=self.base) | {"max_model_len": self._engine.window}]
        found += [self._adapter(name, each.card, loaded=True) for name, each in loaded.items()]
        cards = [card for card in self._cards() if self._fits(card)]
        found += [self._adapter(card.id, card, loaded=False) for card in cards if card.id not in loaded]
        for card in cards:
            if card.node not in loaded and self._promoted(card.node) == card.id:
                found.append(self._adapter(card.node, card, loaded=card.id in loaded))
        return found

    def _adapter(self, name: str, card: AdapterCard, *, loaded: bool) -> dict[str, Any]:
        return self._entry(name, _timestamp(card.created), root=card.id) | {"parent": self.base, "loaded": loaded}

    def _entry(self, name: str, created: int, *, root: str) -> dict[str, Any]:
        owner = "cmat-graph"
        return {"id": name, "object": "model", "created": created, "owned_by": owner, "root": root, "parent": None}

    def _loaded(self) -> set[str]:
        return {each.name for each in self._adapters.list()}

    def _fits(self, card: AdapterCard) -> bool:
        if card.is_full:
            return False
        hashes = card.base_hash, self._engine.base_hash
        return hashes[0] == hashes[1] if all(hashes) else card.base == self._engine.base

    def _promoted(self, node: str) -> str:
        """Return the id of a node's promoted adapter, without reading all cards; empty when there is none."""
        current = self._registry.current(node) if _NODE.fullmatch(node) else None
        return f"{node}/{current}" if current else ""

    def _registered(self, model: str, promoted: str) -> AdapterCard:
        """Find a card by its id, by its node (which means the promoted one, never another), or by its name alone."""
        cards = self._cards()
        for card in reversed(cards):
            if card.id in (model, promoted):
                return card
        if of_node := [card.id for card in cards if card.node == model]:
            gone = f"its promoted adapter {promoted!r} is gone" if promoted else "none of its adapters is promoted"
            raise _unknown(model, f"it is a node, and {gone}; promote one, or ask for one of {', '.join(of_node[-5:])}")
        for card in reversed(cards):
            if card.name == model:
                return card
        raise _unknown(model, "GET /v1/models lists those that do")

    def _card_at(self, path: str) -> AdapterCard:
        """Return the card of a folder in the registry: `node/name`, or the whole path."""
        folder = self._registry.root.resolve() / path
        if ".." in Path(path).parts or not self._holds(folder):
            raise Refusal(
                403, f"{path!r} is not in the server's adapter registry; give its node/name there", param="lora_path"
            )
        for card in self._cards():
            if Path(card.folder).resolve() == folder.resolve():
                return card
        raise AdapterNotFoundError(f"no adapter found for {path!r} in the server's registry")

    def _cards(self) -> builtins.list[AdapterCard]:
        return [card for card in self._registry.list() if self._holds(Path(card.folder))]

    def _holds(self, folder: Path) -> bool:
        """Tell whether a folder and its files lie in the registry, wherever links lead."""
        root = self._registry.root.resolve()
        try:
            return all(each.resolve().is_relative_to(root) for each in (folder, *folder.glob("*")))
        except (OSError, ValueError, RuntimeError):  # a name too long, a null character, links in a circle
            return False


def base_name(base: str) -> str:
    """Return the name by which a base is served: its hub id, or the last part of its folder."""
    return Path(base).resolve().name if Path(base).is_dir() else base


def _unknown(model: str, hint: str) -> Refusal:
    return Refusal(404, f"the model {model!r} does not exist: {hint}", code="model_not_found", param="model")


def _timestamp(created: str) -> int:
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return 0
