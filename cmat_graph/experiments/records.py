"""What an experiment has found so far: one file for each arm and seed, so that a stopped one goes on.

DIR/experiment.json             which experiment it is, and with which settings
DIR/arms/<arm>.seed-<n>.json    one `Record`
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmat_graph.errors import ConfigurationError

PLAN = "experiment.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How one arm did with one seed."""

    arm: str
    seed: int
    rewards: dict[str, float]
    """Reward of each task, by its id."""
    score: dict[str, float] = field(default_factory=dict)
    """The environment's official metric."""
    stopped: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    """Failed episodes by tag."""
    seconds: float = 0.0
    """How long it took; of an arm that was stopped and went on, its last part."""
    adapter: str = ""
    """Which weights played: `node/name@hash`."""
    general: dict[str, float] = field(default_factory=dict)
    """Where it was asked: general instructions that were followed (1) or not (0), by id."""


class Records:
    """The folder of one experiment's records.

    Args:
        folder: Where they lie; made if there is none.
        kind: Which experiment.
        settings: With which settings.

    Raises:
        ConfigurationError: The folder holds another experiment, or one with other settings.

    """

    def __init__(self, folder: Path, *, kind: str, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        plan = json.loads(json.dumps({"kind": kind, "settings": settings}))
        (folder / "arms").mkdir(parents=True, exist_ok=True)
        file = folder / PLAN
        if file.is_file():
            _check(file, plan)
        else:
            write_json(file, plan)

    def read(self, arm: str, seed: int) -> Record | None:
        """Return what was recorded; None when it was not played to its end."""
        file = self._file(arm, seed)
        try:
            return Record(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as exc:
            raise ConfigurationError(f"{file} cannot be read: {exc}; delete it, and the arm is played anew") from exc

    def write(self, record: Record) -> Record:
        """Keep a record."""
        write_json(self._file(record.arm, record.seed), asdict(record))
        return record

    def _file(self, arm: str, seed: int) -> Path:
        return self.folder / "arms" / f"{arm.replace(' ', '-')}.seed-{seed}.json"


def write_json(target: Path, value: object) -> None:
    """Write a file aside, then put it in its place."""
    aside = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, target)


def _check(file: Path, plan: Mapping[str, Any]) -> None:
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
        kind, settings = begun["kind"], dict(begun["settings"])
    except (ValueError, TypeError, KeyError) as exc:
        raise ConfigurationError(f"{file} is no experiment's: {exc}; give another --out") from exc
    if kind != plan["kind"]:
        raise ConfigurationError(f"{file.parent} holds the experiment {kind!r}; give another --out for this one")
    wanted = plan["settings"]
    if other := sorted(name for name in settings.keys() | wanted.keys() if settings.get(name) != wanted.get(name)):
        name = other[0]
        raise ConfigurationError(
            f"{file.parent} was begun with other settings ({name}: {settings.get(name)!r}, now {wanted.get(name)!r}); "
            "give another --out"
        )
