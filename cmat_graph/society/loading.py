"""Open a society that was trained: who sits where, to ask it or to measure it elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import ConfigurationError
from cmat_graph.records import PLAN
from cmat_graph.society.team import Team

NAME = re.compile(r"maft-(\d+)\.seed-(\d+)")

NEEDED = ("agents", "rounds", "temperature", "top_p", "max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A society as it is after an iteration."""

    team: Team
    base: str
    pack: str
    iteration: int
    seed: int
    registry: AdapterRegistry
    cards: tuple[AdapterCard, ...]
    """All adapters that it came from, those of earlier iterations too."""
    society: dict[str, Any]
    """Its settings that are needed to ask it, as fields of `SocietySettings`."""


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
        settings = {name: told["society"][name] for name in NEEDED}
        agents = int(settings["agents"])
        base, pack = str(told["base"]), str(told["pack"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as exc:
        raise ConfigurationError(f"no society in {folder}: {exc}; make one with: cmat-graph society train") from exc
    registry = AdapterRegistry(place / "adapters")
    # Measured, that is whole: of one that was stopped half its agents may be those of the iteration before.
    files = (place / "arms").glob("maft-*.json")
    done = sorted({int(m[1]) for file in files if (m := NAME.fullmatch(file.stem)) and int(m[2]) == seed})
    if not done or (iteration is not None and iteration not in done):
        known = ", ".join(map(str, done)) or "none"
        raise ConfigurationError(
            f"{folder} holds no finished iteration {iteration or 1} of seed {seed}; finished: {known}; go on with: "
            "cmat-graph society train"
        )
    last = done[-1] if iteration is None else iteration
    team = Team.of_one(None, agents)
    cards: list[AdapterCard] = []
    for number in range(1, last + 1):  # who learned nothing in an iteration is as after the one before
        made = _made(registry, list(team.seats), number, seed)
        cards += made.values()
        team = team.seat(made)
    return Trained(
        team=team,
        base=base,
        pack=pack,
        iteration=last,
        seed=seed,
        registry=registry,
        cards=tuple(cards),
        society=settings,
    )


def _made(registry: AdapterRegistry, nodes: list[str], number: int, seed: int) -> dict[str, AdapterCard]:
    made = {node: registry.find(node, f"maft-{number}-seed-{seed}") for node in nodes}
    return {node: card for node, card in made.items() if card is not None}
