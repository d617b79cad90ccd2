"""An adapter's card: where it comes from, how it was made, and how it did."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cmat_graph.errors import AdapterNotFoundError, ConfigurationError

CARD = "card.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
BASES = ".bases"
FULL = "full"
"""The method that leaves a whole model in the adapter's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCard:
    """Everything needed to judge an adapter and to make it again. No path of a machine stands in it."""

    name: str
    node: str
    """The seat it was trained for."""
    base: str
    """The base model: a hub id, `nano`, or a folder. Of a folder the card keeps the name alone, for adapters travel;
    where it lay is noted in the registry, under `.bases/`."""
    base_hash: str = ""
    """SHA-256 of the base's weights; an adapter is refused on another base."""
    template_hash: str = ""
    """SHA-256 of the base's chat template, by which its prompts were rendered; another one is warned of."""
    method: str = "lora"
    init: str = ""
    """Key of the adapter that training began from; empty for the bare base."""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    dataset_hash: str = ""
    examples: int = 0
    tokens: int = 0
    """Tokens that training read."""
    episodes: list[str] = field(default_factory=list)
    """Ids of the recorded episodes that it learned from; of more than a few hundred they stand in
    `dataset/episodes.txt` alone."""
    episode_count: int = 0
    episodes_hash: str = ""
    """SHA-256 of their sorted ids."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many rows each stage of the harvest kept and left out, by reason."""
    harvest: dict[str, Any] = field(default_factory=dict)
    """The rules by which the dataset was made, with their seed."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was trained, with the seed."""
    versions: dict[str, str] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    """The training loss as it was logged."""
    validation_loss: list[float] = field(default_factory=list)
    """The loss on the tasks that are kept to choose by."""
    seconds: float = 0.0
    scores: dict[str, Any] = field(default_factory=dict)
    """Held-out scores by arm, once it was evaluated."""
    gate: dict[str, Any] = field(default_factory=dict)
    """What the gate found: against whom, on how many tasks, how sure; empty while it was not asked."""
    calibration: dict[str, float] = field(default_factory=dict)
    """Turns how sure it is of a reply into a chance of success, once `cmat-graph adapters calibrate` fitted it."""
    folder: str = ""
    """Where it lies now; not written into the card, so that folders can be moved."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 of weights and settings, by which two of one name are told apart; empty without weights."""
        files = [Path(self.folder, name) for name in (WEIGHTS, CONFIG)]
        if self.is_full:
            files = [*sorted(Path(self.folder).glob("model*.safetensors")), Path(self.folder, "config.json")]
        if not self.folder or not files[0].is_file():
            return ""
        present = [file for file in files if file.is_file()]
        seen = [file.stat() for file in present]
        names = tuple(file.name for file in present)
        return _hash(self.folder, names, *((each.st_mtime_ns, each.st_size, each.st_ino) for each in seen))

    @property
    def key(self) -> str:
        """`node/name@hash`: this version, for good."""
        return f"{self.id}@{self.weights_hash[:12]}"

    @property
    def id(self) -> str:
        """`node/name`, the name by which calls choose it."""
        return f"{self.node}/{self.name}"

    @property
    def is_full(self) -> bool:
        """Whether its folder holds a whole model, and no adapter for the base."""
        return self.method == FULL

    @property
    def verdict(self) -> str:
        """What the gate said, in a few words."""
        return str(self.gate.get("verdict", "not judged"))


def is_name(name: object) -> bool:
    """Tell whether a node or an adapter may be called so: one part of a path, that leads nowhere else.

    Example:
        >>> is_name("round-1"), is_name("../round-1")
        (True, False)

    """
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


def check_name(name: str) -> None:
    """Refuse a name that would leave its folder.

    Raises:
        ConfigurationError: It is not made of letters, digits, `.`, `_` and `-` alone.

    """
    if not is_name(name):
        raise ConfigurationError(f"{name!r} is no name for a node or adapter; use letters, digits, '.', '_' and '-'")


def hash_episodes(ids: Sequence[str]) -> str:
    """Hash the ids of episodes, whatever their order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def read_card(folder: Path) -> AdapterCard:
    """Read the card in a folder.

    Raises:
        AdapterNotFoundError: It is not there, or cannot be read.

    """
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        known = {f.name for f in fields(AdapterCard)}
        card = AdapterCard(**{k: v for k, v in values.items() if k in known} | {"folder": str(folder)})
        for name in (card.node, card.name):  # whoever wrote it: they become paths
            if not is_name(name):
                raise ValueError(f"{name!r} is no name for a node or adapter")
        return replace(card, base=_find_base(folder, card))
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise AdapterNotFoundError(
            f"{folder / CARD} is not a readable card: {exc}; remove the folder or restore it"
        ) from exc


def write_card(folder: Path, card: AdapterCard) -> None:
    """Write a card into an adapter's folder, whole or not at all; note beside the adapters where its base lies."""
    values = {name: value for name, value in asdict(card).items() if name != "folder"}
    base = Path(card.base)
    if base.is_dir():
        values["base"] = base.resolve().name
        if card.base_hash:
            (folder.absolute().parents[1] / BASES).mkdir(exist_ok=True)
            write_aside(folder.absolute().parents[1] / BASES / card.base_hash[:16], f"{base.resolve()}\n")
    write_aside(folder / CARD, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _find_base(folder: Path, card: AdapterCard) -> str:
    """Return where a base lies that was given as a folder, if it is known here; else its name."""
    noted = folder.absolute().parents[1] / BASES / (card.base_hash[:16] or "unknown")
    place = noted.read_text(encoding="utf-8").strip() if noted.is_file() else ""
    return place if Path(place).name == card.base and Path(place).is_dir() else card.base


def write_aside(target: Path, text: str) -> None:
    """Write a file beside its place, then put it there: a reader or a killed process never meets half of it."""
    aside = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


@lru_cache(maxsize=256)
def _hash(folder: str, names: tuple[str, ...], *seen: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        with Path(folder, name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
