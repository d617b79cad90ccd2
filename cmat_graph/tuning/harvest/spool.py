"""Rows wait on disk while a harvest decides about them; memory keeps only what the decision needs."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

NEAR = 64
"""Rows that are kept after they were read: replies of one conversation are asked for one after another."""


class Place(NamedTuple):
    """Where a row lies in the spool."""

    offset: int
    length: int


class Spool:
    """A file of rows that are written once and read where they lie.

    Args:
        file: Made anew.

    """

    def __init__(self, file: Path) -> None:
        self._file: IO[bytes] = file.open("w+b")
        self._end = 0
        self._near: dict[Place, dict[str, Any]] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, row: dict[str, Any]) -> Place:
        """Write a row."""
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        self._file.seek(self._end)
        self._file.write(line)
        place = Place(self._end, len(line))
        self._end += len(line)
        return place

    def get(self, place: Place) -> dict[str, Any]:
        """Read a row back; nobody may change it."""
        if place not in self._near:
            if len(self._near) >= NEAR:
                self._near.clear()
            self._file.seek(place.offset)
            self._near[place] = json.loads(self._file.read(place.length))
        return self._near[place]


@dataclass(slots=True, kw_only=True)
class Candidate:
    """What is remembered of a conversation that may be trained on."""

    place: Place
    task: int
    """Number of its task."""
    digest: bytes
    """Equal rows have equal ones."""
    steps: int
    """Model calls of the attempt it comes from."""
    chars: int
    loss: float
    """Characters of its targets, each with its weight; they stand for tokens, which depend on the base."""
    env: str
    kind: str
    side: str = ""
    """What a selection must not lose: for verdicts, which way they go."""
    sketch: array[int]
    general: bool = False
    scale: float = 1.0
    """What the weights of its messages are multiplied with at the end."""


@dataclass(slots=True, kw_only=True)
class Deed:
    """What is remembered of one reply whose worth is known: preferences are made of these."""

    place: Place
    at: int
    """Position of the reply in its conversation; what stands before is its prompt."""
    task: int
    state: bytes
    """Hash of the prompt."""
    action: bytes
    """Hash of the reply."""
    good: bool
    contrast: str = ""
    """Why it is not good."""
    mended: int = -1
    """Number of the deed that did better right after, where there is one."""
