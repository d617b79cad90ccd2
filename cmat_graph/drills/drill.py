"""One exercise, and the choice of its flaws: rare ones first, so that a checker meets all kinds alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cmat_graph.flaws import Flaw
from cmat_graph.scoring import SQLTable
from cmat_graph.types import Message, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One action to judge before it runs."""

    task: Task
    env: str
    rules: str
    """What the environment allows, as the checker's system prompt tells it."""
    before: list[Message] = field(default_factory=list)
    """The turns of the attempt before this action."""
    reply: str
    """What the assistant wrote: its thought and the action."""
    fixed: str
    """The gold action."""
    flaw: Flaw | None = None
    """What is wrong with it; None for the gold action itself."""
    table: SQLTable | None = None
    """The table that it is about, for a database."""
    is_statement: bool = False
    """True for SQL, which can be run on the table; False for an answer."""

    @property
    def right(self) -> bool:
        """True when it is to be approved."""
        return self.flaw is None


class Chooser:
    """Picks flaws, of those that an action offers the kinds that were picked least so far."""

    def __init__(self, each: int) -> None:
        self.counts: Counter[str] = Counter()
        self._each = each

    def choose(self, flaws: Iterable[Flaw], is_flawed: Callable[[Flaw], bool] = lambda flaw: True) -> list[Flaw]:
        """Pick as many as each action is to have; one that does no harm when it is run is none."""
        chosen: list[Flaw] = []
        for flaw in sorted(flaws, key=lambda each: self.counts[each.name]):  # stable: random among equals
            if len(chosen) == self._each:
                break
            if is_flawed(flaw):
                chosen.append(flaw)
                self.counts[flaw.name] += 1
        return chosen
