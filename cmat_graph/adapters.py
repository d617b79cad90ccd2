"""Adapter folders and their cards: meeting place two. The tuning half writes them, the models read them.

adapters/<node>/<name>/adapter_config.json  adapter_model.safetensors  card.json
adapters/<node>/current                     the name of the promoted adapter
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cmat_graph.errors import AdapterNotFoundError, ConfigurationError

logger = logging.getLogger(__name__)

CARD = "card.json"
CURRENT = "current"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCard:
    """Everything needed to judge an adapter and to make it again."""

    name: str
    node: str
    """The seat it was trained for."""
    base: str
    """The base model, as it was given: a hub id, a folder, or `nano`."""
    base_hash: str = ""
    """SHA-256 of the base's weights; an adapter is refused on another base."""
    method: str = "lora"
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    dataset_hash: str = ""
    examples: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """How many rows each stage of the harvest kept and left out, by reason."""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    """The training loss as it was logged."""
    seconds: float = 0.0
    scores: dict[str, Any] = field(default_factory=dict)
    """Held-out scores by arm, once it was evaluated."""
    calibration: dict[str, float] = field(default_factory=dict)
    """Turns how sure it is of a reply into a chance of success, once `cmat-graph adapters calibrate` fitted it."""
    folder: str = ""
    """Where it lies now; not written into the card, so that folders can be moved."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 of weights and settings, by which two of one name are told apart; empty without weights."""
        files = [Path(self.folder, name) for name in (WEIGHTS, CONFIG)]
        if not files[0].is_file():
            return ""
        seen = [file.stat() for file in files if file.is_file()]
        return _hash(self.folder, *((each.st_mtime_ns, each.st_size, each.st_ino) for each in seen))

    @property
    def key(self) -> str:
        """`node/name@hash`: this version, for good."""
        return f"{self.id}@{self.weights_hash[:12]}"

    @property
    def id(self) -> str:
        """`node/name`, the name by which calls choose it."""
        return f"{self.node}/{self.name}"


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
        found = []
        for file in self.root.glob(f"{node or '*'}/[!.]*/{CARD}"):
            try:
                found.append(_read(file.parent))
            except AdapterNotFoundError as exc:
                logger.warning("%s", exc)
        return sorted(found, key=lambda card: card.created)

    def get(self, name: str) -> AdapterCard:
        """Return a card by `node/name`, by its name alone, or by a node: then the promoted or else the newest one.

        Raises:
            AdapterNotFoundError: There is none; the message lists those there are.

        """
        for folder in (Path(name), self.root / name):
            if (folder / CARD).is_file():
                return _read(folder)
        cards = self.list()
        matches = [card for card in cards if name in (card.id, card.name)]
        if not matches:
            of_node = [card for card in cards if card.node == name]
            current = self.current(name) if of_node else None
            matches = [card for card in of_node if card.name == current] or of_node
        if not matches:
            known = ", ".join(card.id for card in cards) or "none yet; make one with: cmat-graph distill"
            raise AdapterNotFoundError(f"no adapter {name!r} in {self.root}; known: {known}")
        return matches[-1]

    def current(self, node: str) -> str | None:
        """Return the name of a node's promoted adapter."""
        pointer = self.root / node / CURRENT
        return pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None

    def promote(self, card: AdapterCard) -> None:
        """Make an adapter the current one of its node."""
        _write_aside(self.root / card.node / CURRENT, card.name + "\n")

    def add(self, card: AdapterCard, write: Callable[[Path], AdapterCard]) -> AdapterCard:
        """Register an adapter: `write` puts its files into a folder and returns its final card.

        The adapter becomes visible only when all went well; one of the same name stays until then.
        """
        _check_name(card.node)
        _check_name(card.name)
        target = self.root / card.node / card.name
        aside = self.root / card.node / f".{card.name}-{uuid.uuid4().hex[:8]}"
        old = aside.with_name(f"{aside.name}-old")
        aside.mkdir(parents=True)
        try:
            _write_card(aside, write(aside))
            if target.exists():
                os.replace(target, old)
            os.replace(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        return _read(target)

    def update(self, card: AdapterCard) -> AdapterCard:
        """Write a changed card, such as one with new scores, where the adapter lies."""
        _write_card(Path(card.folder), card)
        return card


@lru_cache(maxsize=256)
def _hash(folder: str, *seen: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    for name in (WEIGHTS, CONFIG):
        if Path(folder, name).is_file():
            with Path(folder, name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _read(folder: Path) -> AdapterCard:
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        known = {f.name for f in fields(AdapterCard)}
        return AdapterCard(**{k: v for k, v in values.items() if k in known} | {"folder": str(folder)})
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise AdapterNotFoundError(
            f"{folder / CARD} is not a readable card: {exc}; remove the folder or restore it"
        ) from exc


def _write_card(folder: Path, card: AdapterCard) -> None:
    values = {name: value for name, value in asdict(card).items() if name != "folder"}
    _write_aside(folder / CARD, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _write_aside(target: Path, text: str) -> None:
    aside = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, target)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(f"{name!r} is no name for a node or adapter; use letters, digits, '.', '_' and '-'")
