"""What an improvement has done so far: one file, written aside and renamed after each stage, so that a crash costs one.

DIR/state.json      stages that are done, and what came of them
DIR/traces.db       the plays that are learned from, one run for each round and sample
DIR/heldout.db      the plays of the gate and of the curve, one run for each team
DIR/adapters/       the registry
"""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmat_graph.adapters.card import write_aside
from cmat_graph.errors import ConfigurationError

STATE, LOCK = "state.json", ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """How one team did on the held-out test tasks."""

    round: int
    """After which round; 0 is where it began."""
    team: str
    success_rate: float
    stderr: float
    n: int
    gain: float
    """Paired difference of rewards to the beginning."""
    gain_stderr: float
    p: float
    """The chance of so great a gain, were it none."""


@dataclass(slots=True, kw_only=True)
class Improved:
    """An improvement, done or on its way."""

    about: dict[str, Any] = field(default_factory=dict)
    """What it is an improvement of, by which settings."""
    teams: list[dict[str, str]] = field(default_factory=list)
    """Names of the adapters by node, at the beginning and after each round."""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """What each stage of each round brought."""
    curve: list[Point] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what is kept and printed."""
        return asdict(self)


class State:
    """An improvement's file.

    Args:
        directory: Where it lies; made if it is not there.
        about: What is improved and how.

    Raises:
        ConfigurationError: The directory holds another improvement, or another process is at it.

    """

    def __init__(self, directory: Path, about: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = (directory / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process gives it back
        except OSError as exc:
            self._lock.close()
            raise ConfigurationError(
                f"another process improves in {directory}; wait for it, or give another directory"
            ) from exc
        self._file = directory / STATE
        about = json.loads(json.dumps(about))
        self.improved = self._read() if self._file.is_file() else Improved(about=about)
        if self.improved.about != about:
            self.close()
            before = _flat(self.improved.about)
            changed = [name for name, value in _flat(about).items() if before.get(name) != value]
            raise ConfigurationError(
                f"{directory} holds an improvement with another {', '.join(changed) or 'version'}; "
                "give another directory, or the settings that it began with"
            )

    def close(self) -> None:
        """Let others go on."""
        self._lock.close()

    def round(self, number: int) -> dict[str, Any]:
        """Return the notes of a round, to be added to."""
        while len(self.improved.rounds) < number:
            self.improved.rounds.append({"round": len(self.improved.rounds) + 1, "nodes": {}})
        return self.improved.rounds[number - 1]

    def save(self) -> None:
        """Write it, whole or not at all."""
        write_aside(self._file, json.dumps(self.improved.to_json(), indent=1) + "\n")

    def _read(self) -> Improved:
        try:
            values = json.loads(self._file.read_text(encoding="utf-8"))
            return Improved(**values | {"curve": [Point(**point) for point in values["curve"]]})
        except (ValueError, TypeError, KeyError) as exc:
            raise ConfigurationError(
                f"{self._file} cannot be read: {exc}; restore it, or give another directory"
            ) from exc


def _flat(about: dict[str, Any]) -> dict[str, Any]:
    """Lay out the settings of the harvest and the training one by one, as `train.rank`."""
    flat: dict[str, Any] = {}
    for name, value in about.items():
        flat |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat
