"""What an experiment found: a rate for each arm, and paired differences between arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmat_graph.experiments.records import Record
from cmat_graph.paired import mean, sign_flips
from cmat_graph.report import Estimate, Table, estimate
from cmat_graph.report.estimates import difference


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScore:
    """How one arm did over all tasks and seeds."""

    name: str
    success: Estimate
    """Share of held-out tasks with the full reward."""
    tasks: int
    seeds: int
    score: dict[str, float]
    """The environment's official metric, the mean over seeds."""
    stopped: dict[str, int]
    failures: dict[str, int]
    """Failed episodes by tag, over all seeds."""
    seconds: float
    """Time for one seed."""
    general: Estimate | None = None
    """Share of general instructions that were followed."""
    adapters: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what is printed and saved."""
        told: dict[str, Any] = {
            "name": self.name,
            "success_rate": self.success.mean,
            "stderr": self.success.stderr,
            "n": self.tasks,
            "seeds": self.seeds,
            "score": self.score,
            "stopped": self.stopped,
            "failures": self.failures,
            "seconds": round(self.seconds, 1),
        }
        if self.general is not None:
            told["general"] = self.general.to_json()
        return told | ({"adapters": list(self.adapters)} if self.adapters else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How much one arm is better than another, paired by task and seed."""

    better: str
    worse: str
    difference: Estimate
    p: float
    """The chance of a difference this large either way, were the arms alike: signs of the tasks' differences flipped at
    random. It is about other tasks; seeds are taken as they are."""

    def to_json(self) -> dict[str, Any]:
        """Return what is printed and saved."""
        return {"better": self.better, "worse": self.worse, **self.difference.to_json(), "p": round(self.p, 5)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An experiment's finding."""

    kind: str
    title: str
    arms: list[ArmScore]
    gaps: list[Gap]
    settings: dict[str, Any]
    note: str = ""
    """What a reader has to know."""

    def to_json(self) -> dict[str, Any]:
        """Return what is printed and saved."""
        return {
            "kind": self.kind,
            "arms": [arm.to_json() for arm in self.arms],
            "differences": [gap.to_json() for gap in self.gaps],
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """Return the arms, their differences, and why episodes failed."""
        general = any(arm.general is not None for arm in self.arms)
        head = ["arm", "success", "score", *(["general"] if general else []), "tasks", "seeds", "seconds"]
        rows = [_row(arm, general) for arm in self.arms]
        tables = [Table(title=self.title, columns=head, rows=rows, note=self.note)]
        if self.gaps:
            paired = [
                [
                    f"{gap.better} against {gap.worse}",
                    gap.difference.points(),
                    "< 0.001" if gap.p < 0.001 else f"{gap.p:.3f}",
                ]
                for gap in self.gaps
            ]
            head = ["paired differences", "percentage points", "p"]
            note = (
                "p: two-sided, by flipping the signs of the tasks' differences at random; seeds are taken as they are."
            )
            tables.append(Table(columns=head, rows=paired, note=note))
        if table := self._failures():
            tables.append(table)
        return tables

    def bars(self) -> dict[str, dict[str, Estimate]]:
        """Return what is drawn."""
        measured = {arm.name: {"held-out tasks": arm.success} for arm in self.arms}
        for arm in self.arms:
            if arm.general is not None:
                measured[arm.name]["general instructions"] = arm.general
        return measured

    def _failures(self) -> Table | None:
        counts: Counter[str] = Counter()
        for arm in self.arms:
            counts.update(arm.failures)
        if not counts:
            return None
        rows = [
            [tag, *(f"{arm.failures.get(tag, 0) / arm.seeds:.4g}" for arm in self.arms)]
            for tag, _ in counts.most_common()
        ]
        title = "failed episodes by tag, for one seed; an episode may have several"
        return Table(title=title, columns=["tag", *(arm.name for arm in self.arms)], rows=rows)


def score_arm(name: str, records: Sequence[Record], tasks: Sequence[str]) -> ArmScore:
    """Put the records of one arm together.

    Args:
        name: The arm.
        records: One for each seed.
        tasks: Ids of the tasks, in their order.

    """
    stopped: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for record in records:
        stopped.update(record.stopped)
        failures.update(record.failures)
    asked = list(records[0].general)
    return ArmScore(
        name=name,
        success=estimate(solved(records, tasks)),
        tasks=len(tasks),
        seeds=len(records),
        score={key: sum(r.score.get(key, 0.0) for r in records) / len(records) for key in records[0].score},
        stopped=dict(stopped),
        failures=dict(failures),
        seconds=sum(record.seconds for record in records) / len(records),
        general=estimate([[record.general[each] for each in asked] for record in records]) if asked else None,
        adapters=tuple(record.adapter for record in records if record.adapter),
    )


def compare_arms(
    records: Mapping[str, Sequence[Record]], pairs: Sequence[tuple[str, str]], tasks: Sequence[str]
) -> list[Gap]:
    """Pair arms, the one that is thought better first; pairs with an arm that was not played are left out."""
    return [
        _gap(a, b, solved(records[a], tasks), solved(records[b], tasks)) for a, b in pairs if {a, b} <= set(records)
    ]


def _gap(better: str, worse: str, first: list[list[float]], second: list[list[float]]) -> Gap:
    by_task = [mean(a) - mean(b) for a, b in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True)]
    p = min(1.0, 2 * min(sign_flips(by_task), sign_flips([-each for each in by_task])))
    return Gap(better=better, worse=worse, difference=difference(first, second), p=p)


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def solved(records: Sequence[Record], tasks: Sequence[str]) -> list[list[float]]:
    """Return 1 for a full reward and 0 otherwise: a row for each seed, a column for each task."""
    return [[float(record.rewards[task] >= 1.0) for task in tasks] for record in records]


def _row(arm: ArmScore, general: bool) -> list[str]:
    asked = [arm.general.percent() if arm.general is not None else "-"] if general else []
    main = f"{arm.score['main']:.3f}" if "main" in arm.score else "-"
    return [arm.name, arm.success.percent(), main, *asked, str(arm.tasks), str(arm.seeds), f"{arm.seconds:.0f}"]
