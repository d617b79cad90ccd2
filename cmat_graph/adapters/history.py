"""What was promoted and rolled back for a node: a file that is only appended to, so that nothing in it is ever lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

HISTORY = "promotions.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One change of a node's adapter."""

    event: Literal["promoted", "rolled back"]
    name: str
    """The adapter that answers from then on; empty for the base alone."""
    before: str = ""
    """The adapter that answered until then; empty for the base alone."""
    weights: str = ""
    """The first digits of the hash of its weights."""
    why: str = ""
    """Who chose it: `by hand`, or what the gate found."""
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def append(folder: Path, promotion: Promotion) -> None:
    """Add a line; many processes may at once.

    Begun on a line of its own, lest a half-written one swallow it; one write, so that no two mingle.
    """
    with (folder / HISTORY).open("ab", buffering=0) as out:
        out.write(f"\n{json.dumps(asdict(promotion), ensure_ascii=False)}\n".encode())


def read(folder: Path) -> list[Promotion]:
    """Return all changes, oldest first; a line that a killed process left half written is skipped."""
    file = folder / HISTORY
    found = []
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            found.append(Promotion(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def standing(history: Iterable[Promotion]) -> list[str]:
    """Return the adapters that stand under the current one, which comes last: a roll back takes the last away.

    Example:
        >>> one, two = Promotion(event="promoted", name="one"), Promotion(event="promoted", name="two")
        >>> standing([one, two, Promotion(event="rolled back", name="one", before="two")])
        ['one']

    """
    stack: list[str] = []
    for change in history:
        if change.event == "rolled back":
            while stack and stack[-1] != change.name:
                stack.pop()
        elif stack[-1:] != [change.name]:
            if not stack and change.before:
                stack.append(change.before)  # promoted before there was a history
            stack.append(change.name)
    return stack
