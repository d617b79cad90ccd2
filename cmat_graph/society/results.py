"""What methods came to: tables like the paper's 1 and 2, curves over iterations, what each cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cmat_graph.paired import mean, sign_flips
from cmat_graph.report import Estimate, Table, estimate
from cmat_graph.report.estimates import difference
from cmat_graph.society.methods import METHODS, Group
from cmat_graph.society.score import Score
from cmat_graph.society.settings import Setup

MAIN = "maft"
PAIRS = (
    ("majority", "base"),
    ("vote", "majority"),
    ("debate", "majority"),
    ("debate", "vote"),
    ("maft", "debate"),
    ("maft", "vote"),
    ("maft", "star"),
    ("maft", "majority_ft"),
    ("maft", "single_ft"),
    ("maft", "share"),
    ("maft", "union"),
    ("single_ft", "share"),
    ("maft", "no_critic"),
    ("maft", "no_summary"),
    ("no_summary", "vote_plain"),
    ("single_ft", "vote"),
    ("union", "vote"),
    ("dpo", "debate"),
    ("cooperate_ft", "cooperate"),
    ("student", "base"),
    ("student", "debate"),
)
"""What is paired, the one that is thought better first."""
MEASURES = {
    "diversity": "1 - consensus",
    "nll.value": "NLL of the others' replies",
    "embedding.value": "embedding dissimilarity",
    "kl_generators.value": "KL between generators",
    "kl_critics.value": "KL between critics",
    "kl_base_generators.value": "KL of generators to the base",
    "kl_base_critics.value": "KL of critics to the base",
}
"""What is shown of the diversity, by its name in a score; defined in `diversity.DEFINITIONS`."""
_SHORT = dict(zip(MEASURES, ("differ", "NLL", "embed", "KL gen", "KL crit", "gen-base", "crit-base"), strict=True))
"""The same as heads of narrow columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm over all seeds."""

    arm: str
    title: str
    group: Group
    iteration: int
    """0 where there is none."""
    accuracy: Estimate
    seeds: int
    calls: float
    """Model calls for a question."""
    tokens: float
    scores: tuple[Score, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what is printed and saved."""
        return {
            "arm": self.arm,
            "title": self.title,
            "iteration": self.iteration,
            "accuracy": round(self.accuracy.mean, 5),
            "stderr": round(self.accuracy.stderr, 5),
            "questions": len(self.scores[0].correct),
            "seeds": self.seeds,
            "calls": self.calls,
            "tokens": round(self.tokens, 1),
            "failed": sum(score.failed for score in self.scores),
            "trained": _means(score.trained for score in self.scores),
            "labels": _means(score.labels for score in self.scores),
            "diversity": _means(flat(score.diversity) for score in self.scores),
            "sets": {str(score.seed): score.sets for score in self.scores if score.sets},
            "kept": {str(score.seed): score.kept for score in self.scores if score.kept},
            "by_seed": [round(score.accuracy, 5) for score in self.scores],
        }


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A comparison, done or under way."""

    setup: Setup
    scores: Sequence[Score]

    @cached_property
    def rows(self) -> list[Row]:
        """Every arm that has a score, in the order of the methods."""
        titles = {arm: (title, method) for method in METHODS.values() for arm, title in method.arms.items()}
        found: list[Row] = []
        for name, (title, method) in titles.items():
            numbers = sorted({_number(score.arm) for score in self.scores if _name(score.arm) == name})
            for number in numbers:
                scores = tuple(s for s in self.scores if _name(s.arm) == name and _number(s.arm) == number)
                found.append(
                    Row(
                        arm=scores[0].arm,
                        title=title,
                        group=method.group,
                        iteration=number,
                        accuracy=estimate(_correct(scores)),
                        seeds=len(scores),
                        calls=mean([score.calls for score in scores]),
                        tokens=mean([score.tokens for score in scores]),
                        scores=scores,
                    )
                )
        return found

    def row(self, name: str, iteration: int = 1) -> Row | None:
        """Return an arm by its method's name."""
        return next((r for r in self.rows if _name(r.arm) == name and r.iteration in (0, iteration)), None)

    def curve(self, name: str) -> list[Row]:
        """Return an arm's iterations."""
        return [row for row in self.rows if _name(row.arm) == name and row.iteration]

    def to_json(self) -> dict[str, Any]:
        """Return what is printed and saved."""
        return {
            "settings": self.setup.describe(),
            "arms": [row.to_json() for row in self.rows],
            "differences": [
                {"better": a, "worse": b, **found.to_json(), "p": round(p, 5)} for a, b, found, p in self.gaps()
            ],
        }

    def gaps(self) -> list[tuple[str, str, Estimate, float]]:
        """Pair arms by question and seed: names, difference, and the chance of so great a one either way."""
        found = []
        for better, worse in PAIRS:
            first, second = self.row(better), self.row(worse)
            if first is None or second is None:
                continue
            shared = [s.seed for s in first.scores if s.seed in {other.seed for other in second.scores}]
            if not shared:
                continue
            a = _correct([score for score in first.scores if score.seed in shared])
            b = _correct([score for score in second.scores if score.seed in shared])
            by_task = [mean(x) - mean(y) for x, y in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True)]
            p = min(1.0, 2 * min(sign_flips(by_task), sign_flips([-each for each in by_task])))
            found.append((better, worse, difference(a, b), p))
        return found

    def tables(self) -> list[Table]:
        """Return what is shown: the methods, what is paired, the curves, and what it cost."""
        tables = [self._methods()]
        if gaps := self.gaps():
            rows = [
                [f"{a} against {b}", found.points(), f"{p:.3f}" if p >= 0.001 else "< 0.001"] for a, b, found, p in gaps
            ]
            note = "By question and seed; p: two-sided, by flipping the signs of the questions' differences at random."
            tables.append(Table(columns=["paired differences", "points", "p"], rows=rows, note=note))
        curves = [row for row in self.rows if row.iteration and len(self.curve(_name(row.arm))) > 1]
        if curves:
            tables.append(_curves(curves))
        if kept := [(row, score) for row in self.rows for score in row.scores if score.kept]:
            lines = [[f"{row.title}, iteration {row.iteration}", str(s.seed), ", ".join(s.kept)] for row, s in kept]
            note = "No row of their own hit the consensus, or all were too long: these agents stayed as they were."
            tables.append(Table(title="nothing to learn", columns=["", "seed", "agents"], rows=lines, note=note))
        if cut := [row for row in self.rows if any(score.trained.get("left_out") for score in row.scores)]:
            lines = [[_place(row), f"{sum(score.trained.get('left_out', 0) for score in row.scores):,}"] for row in cut]
            note = "Of all seeds and the iterations so far; learn them too with a larger --max-length."
            tables.append(Table(title="rows left out: too long", columns=["", "rows"], rows=lines, note=note))
        if broken := [row for row in self.rows if any(score.failed for score in row.scores)]:
            lines = [[_place(row), f"{sum(score.failed for score in row.scores):,}"] for row in broken]
            note = "Of all test questions and seeds. Who failed has no answer: these figures are too low."
            tables.append(Table(title="calls that failed", columns=["", "calls"], rows=lines, note=note))
        if measured := [row for row in self.rows if any(score.diversity for score in row.scores)]:
            tables.append(_diversity(measured))
        return tables

    def _methods(self) -> Table:
        rows = [
            [
                row.title,
                row.accuracy.percent(),
                f"{row.calls:.3g}",
                f"{row.tokens:,.0f}",
                *_trained(row),
                str(row.seeds),
            ]
            for row in self.rows
            if row.iteration <= 1
        ]
        questions = len(self.scores[0].correct) if self.scores else 0
        return Table(
            title=f"{self.setup.base} on {self.setup.pack}: {questions} test questions, "
            f"{self.setup.settings.agents} agents, {self.setup.settings.rounds} rounds",
            columns=["method", "accuracy", "calls", "tokens", "models", "training tokens", "training s", "seeds"],
            rows=rows,
            note="calls and tokens are those of one test question; training counts the debates that its data "
            "came from. ± is one standard error over questions and seeds.",
        )


def flat(values: dict[str, Any], before: str = "") -> dict[str, float]:
    """Lay nested numbers out, as `nll.mean`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{before}{name}"] = float(value)
    return found


def _curves(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        labels = _means(score.labels for score in row.scores)
        right = f"{100 * labels['right']:.1f} %" if "right" in labels else "-"
        lines.append([_place(row), row.accuracy.percent(), right, str(row.seeds)])
    return Table(title="iterations", columns=["", "accuracy", "labels that are right", "seeds"], rows=lines)


def _diversity(rows: Sequence[Row]) -> Table:
    means = [_means(flat(score.diversity) for score in row.scores) for row in rows]
    names = [name for name in MEASURES if any(name in found for found in means)]
    lines = [[_place(row), *(_told(f.get(n)) for n in names)] for row, f in zip(rows, means, strict=True)]
    note = "; ".join(f"{_SHORT[name]}: {MEASURES[name]}" for name in names)
    return Table(title="diversity", columns=["", *(_SHORT[name] for name in names)], rows=lines, note=note)


def _place(row: Row) -> str:
    return row.title + (f", iteration {row.iteration}" if row.iteration else "")


def _trained(row: Row) -> list[str]:
    spent = _means(score.trained for score in row.scores)
    if not spent:
        return ["0", "-", "-"]
    return [f"{spent.get('models', 0):.0f}", f"{spent.get('tokens', 0):,.0f}", f"{spent.get('seconds', 0):,.0f}"]


def _correct(scores: Sequence[Score]) -> list[list[float]]:
    """Return a row for each seed, a column for each question."""
    questions = list(scores[0].correct) if scores else []
    return [[score.correct[question] for question in questions] for score in scores]


def _means(values: Iterable[dict[str, Any]]) -> dict[str, float]:
    every = [found for found in values if found]
    names = {name for found in every for name, value in found.items() if isinstance(value, int | float)}
    return {name: round(mean([f[name] for f in every if name in f]), 5) for name in sorted(names)}


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _name(arm: str) -> str:
    name, _, number = arm.rpartition("-")
    return name if number.isdigit() else arm


def _number(arm: str) -> int:
    number = arm.rpartition("-")[2]
    return int(number) if number.isdigit() else 0
