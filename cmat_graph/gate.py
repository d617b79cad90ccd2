"""The gate: an adapter is promoted only when it is better on held-out tasks, by a paired test. Otherwise it is kept.

Candidate and incumbent play the same tasks, which no training row came from; what may differ is the one seat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import ConfigurationError
from cmat_graph.paired import ALPHA, Paired, compare_rewards
from cmat_graph.resuming import play
from cmat_graph.splits import assert_disjoint
from cmat_graph.team import Team
from cmat_graph.traces.base import TraceStore
from cmat_graph.traces.sql import SQLTraceStore
from cmat_graph.tuning.dataset import hash_task
from cmat_graph.tuning.distill import tasks_of
from cmat_graph.types import Env, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What the gate found."""

    candidate: AdapterCard
    incumbent: AdapterCard | None
    """Who sat in the seat before; None: the base, or for a checker the probes alone."""
    paired: Paired
    alpha: float
    env: str
    tasks_hash: str
    """SHA-256 of the sorted ids of the tasks."""

    @property
    def better(self) -> bool:
        """Whether the candidate is better, beyond chance."""
        return self.paired.difference > 0 and self.paired.p <= self.alpha

    @property
    def verdict(self) -> str:
        """What became of the candidate, and why."""
        told = f"{self.paired.difference:+.1%}, p={self.paired.p:.2g}, {self.paired.tasks} tasks"
        return f"promoted: better than {self.against} ({told})" if self.better else f"kept: not better ({told})"

    @property
    def against(self) -> str:
        """Name the incumbent."""
        return self.incumbent.id if self.incumbent is not None else "the base"

    def to_json(self) -> dict[str, Any]:
        """Return what stands on the card."""
        return {
            "verdict": self.verdict,
            "better": self.better,
            "against": self.incumbent.key if self.incumbent is not None else "base",
            "alpha": self.alpha,
            "env": self.env,
            "tasks_hash": self.tasks_hash,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.paired.to_json(),
        }


def gate(
    candidate: AdapterCard,
    tasks: Sequence[Task],
    *,
    env: Env,
    registry: AdapterRegistry,
    team: Team | None = None,
    alpha: float = ALPHA,
    traces: TraceStore | None = None,
    concurrency: int = 16,
    seed: int = 0,
    report: Callable[[int, int, str], None] | None = None,
) -> GateResult:
    """Play held-out tasks with a candidate and with what it would replace, and compare.

    Args:
        candidate: The adapter on trial.
        tasks: Held-out tasks; none may have taught it.
        env: Where to play them.
        registry: Where the adapters lie.
        team: Who plays, with the incumbent in its seat; None: what is promoted now, the assistant alone for an
            assistant, and with a second attempt for a checker or a reflector, against the probes.
        alpha: The chance that a candidate which is no better passes.
        traces: Where the plays are recorded, one run for each team, and read back by the next call. None keeps nothing.
        concurrency: Tasks in flight.
        seed: Of the bootstrap.
        report: Called with how many plays are done, how many there are, and whose it is.

    Raises:
        ConfigurationError: There are no tasks.
        LeakError: The candidate was trained on one of them.

    Example:
        >>> result = gate(card, validation_tasks(env.tasks()), env=env, registry=registry)  # doctest: +SKIP
        >>> result.verdict  # doctest: +SKIP
        'promoted: better than the base (+41.4%, p=1.2e-07, 58 tasks)'

    """
    if not tasks:
        raise ConfigurationError("the gate has no held-out tasks to play; give some, or train with --no-gate")
    assert_disjoint(tasks_of(candidate), {name for task in tasks for name in (task.id, hash_task(task.prompt))})
    if team is None:
        judges = candidate.node != "assistant"
        team = Team.serving(registry, candidate.base, attempts=2 if judges else 1, probes=judges)
    arms = {
        "candidate": team.with_adapter(candidate.node, candidate),
        "incumbent": team,
    }
    recording: AbstractContextManager[TraceStore] = (
        nullcontext(traces) if traces is not None else closing(SQLTraceStore("sqlite://"))
    )
    rewards: dict[str, list[float]] = {}
    with recording as store:
        for at, (arm, each) in enumerate(arms.items()):

            def count(done: int, total: int, arm: str = arm, before: int = at * len(tasks)) -> None:
                if report is not None:
                    report(before + done, 2 * len(tasks), arm)

            outcomes = play(
                lambda each=each: each.graph(registry),  # type: ignore[misc]
                tasks,
                env=env,
                traces=store,
                run=each.label,
                concurrency=concurrency,
                freeze_memory=True,
                report=count,
            )
            rewards[arm] = [outcome.reward for outcome in outcomes]
    return GateResult(
        candidate=candidate,
        incumbent=team.adapters.get(candidate.node),
        paired=compare_rewards(rewards["candidate"], rewards["incumbent"], seed=seed),
        alpha=alpha,
        env=env.name,
        tasks_hash=hashlib.sha256("\n".join(sorted(task.id for task in tasks)).encode()).hexdigest(),
    )


def settle(registry: AdapterRegistry, result: GateResult, *, promote: bool = True) -> AdapterCard:
    """Write what the gate found on the card; promote the candidate if it is better."""
    card = registry.update(replace(result.candidate, gate=result.to_json()))
    if promote and result.better and registry.current(card.node) != card.name:
        registry.promote(card, why=f"gate: {result.verdict}")
    return card
