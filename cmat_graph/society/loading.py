"""Open a society that was trained: who sits where, to ask it or to measure it elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError
from cmat_graph.records import PLAN
from cmat_graph.society.team import Team

NAME = re.compile(r"maft-(\d+)-seed-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A society as it is after an iteration."""

    team: Team
    base: str
    pack: str
    iteration: int
    seed: int
    registry: AdapterRegistry
    society: dict[str, Any]
    """Its settings, as fields of `SocietySettings`."""


def open_society(folder: str | Path, *, iteration: int | None = None, seed: int = 0) -> Trained:
    """Open a society's folder.

    Args:
        folder: Where `society train` or `society reproduce` wrote it.
        iteration: After which one; None takes the last.
        seed: Which of its repetitions.

    Raises:
        ConfigurationError: There is no trained society, or not this iteration of it.

    """
    place = Path(folder)
    try:
        plan = json.loads((place / PLAN).read_text(encoding="utf-8"))
        told = plan["settings"]
        agents = int(told["society"]["agents"])
        base, pack = str(told["base"]), str(told["pack"])
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise ConfigurationError(f"no society in {folder}: {exc}; make one with: cmat-graph society train") from exc
    registry = AdapterRegistry(place / "adapters")
    done = sorted({int(m[1]) for card in registry.list() if (m := NAME.fullmatch(card.name)) and int(m[2]) == seed})
    if not done or (iteration is not None and iteration not in done):
        known = ", ".join(map(str, done)) or "none"
        raise ConfigurationError(f"{folder} holds no iteration {iteration or 1} of seed {seed}; there are: {known}")
    last = done[-1] if iteration is None else iteration
    team = Team.of_one(None, agents)
    for number in range(1, last + 1):  # who learned nothing in an iteration is as after the one before
        team = team.seat(_made(registry, list(team.seats), number, seed))
    return Trained(
        team=team, base=base, pack=pack, iteration=last, seed=seed, registry=registry, society=told["society"]
    )


def _made(registry: AdapterRegistry, nodes: list[str], number: int, seed: int) -> dict[str, AdapterCard]:
    found: dict[str, AdapterCard] = {}
    for node in nodes:
        try:
            found[node] = registry.get(f"{node}/maft-{number}-seed-{seed}")
        except AdapterNotFoundError:
            continue
    return found
