"""Measure a checker with exercises, as the paper's Table 1 does: its verdicts, and its corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from langchain_core.runnables import Runnable

from cmat_graph.drills.asking import ask_checker, read_answer
from cmat_graph.drills.drill import Drill
from cmat_graph.errors import EpisodeFailure
from cmat_graph.nodes.calling import to_langchain
from cmat_graph.scoring import VerdictScore, same_effect, score_verdicts
from cmat_graph.types import Verdict

AT_ONCE = 64
"""Exercises asked in one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a checker said of one exercise."""

    drill: Drill
    verdict: Verdict
    raw_confidence: float | None = None
    """How sure the model was of its reply, where it tells."""

    @property
    def is_right(self) -> bool:
        """True when the verdict is right."""
        return self.verdict["passed"] == self.drill.right

    @property
    def correction(self) -> str:
        """The action that it would have in its place; empty when it names none."""
        return "" if self.verdict["passed"] else self.verdict["hint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckScore:
    """A checker's figures."""

    verdicts: VerdictScore
    unreadable: int
    """Replies that were no verdict; they ask for a revision."""
    corrections: dict[str, float]
    """Exact match, BLEU-4 and ROUGE over the broken actions; empty without any."""
    execution: float | None
    """Share of corrected statements that do what the gold one does; None where nothing can be run."""
    found: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each kind of flaw: how many were found, of how many."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        execution = {} if self.execution is None else {"execution": round(self.execution, 4)}
        shares = {name: f"{found}/{total}" for name, (found, total) in sorted(self.found.items())}
        verdicts = {**self.verdicts.to_json(), "unreadable": self.unreadable}
        return {"verdicts": verdicts, "corrections": {**self.corrections, **execution}, "found": shares}


def check_drills(model: Runnable[Any, Any], drills: Sequence[Drill]) -> list[Checked]:
    """Ask a chat model for its verdict on each exercise, as the graph would.

    One that it cannot take, such as a prompt past its window, is unreadable.

    Example:
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> check_drills(ScriptedChatModel(replies=["approve"]), [])
        []

    """
    checked = []
    for at in range(0, len(drills), AT_ONCE):
        asked = drills[at : at + AT_ONCE]
        prompts = [[to_langchain(message) for message in ask_checker(drill)] for drill in asked]
        for drill, reply in zip(asked, model.batch(prompts, return_exceptions=True), strict=True):
            if isinstance(reply, EpisodeFailure):
                checked.append(Checked(drill=drill, verdict=read_answer("")))
                continue
            if isinstance(reply, Exception):
                raise reply
            told = getattr(reply, "response_metadata", {}).get("raw_confidence")
            checked.append(Checked(drill=drill, verdict=read_answer(reply), raw_confidence=told))
    return checked


def score_checked(checked: Sequence[Checked]) -> CheckScore:
    """Score a checker's verdicts and corrections; needs `pip install "cmat-graph[metrics]"`.

    Raises:
        MissingExtraError: sacrebleu or rouge-score is not installed.

    """
    texts = import_module("cmat_graph.scoring.texts")
    broken = [each for each in checked if not each.drill.right]
    gold = [each.drill.fixed for each in broken]
    runnable = [each for each in broken if each.drill.is_statement]
    found: dict[str, tuple[int, int]] = {}
    for each in broken:
        name = each.drill.flaw.name if each.drill.flaw is not None else ""
        right, total = found.get(name, (0, 0))
        found[name] = (right + each.is_right, total + 1)
    ran = [_runs_right(each) for each in runnable]
    return CheckScore(
        verdicts=score_verdicts([each.verdict["passed"] for each in checked], [each.drill.right for each in checked]),
        unreadable=sum(each.verdict["category"] == "unreadable" for each in checked),
        corrections=texts.score_texts([each.correction for each in broken], gold).to_json() if broken else {},
        execution=sum(ran) / len(ran) if ran else None,
        found=found,
    )


def _runs_right(checked: Checked) -> bool:
    table = checked.drill.table
    return table is not None and same_effect(checked.correction, checked.drill.fixed, table)
