"""Fit an adapter's calibration to its recorded episodes: how sure it was, and whether the episode was solved."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.ranking import is_training
from cmat_graph.models.handover.confidence import Calibration, brier_score, expected_calibration_error
from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Episode

MIN_EPISODES = 30
"""Fewer say too little: the standard error of their success rate is up to 9 points."""
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What a calibration brought."""

    card: AdapterCard
    """The adapter's card, with its calibration."""
    episodes: int
    success_rate: float
    ece_before: float
    """Expected calibration error of the raw confidence."""
    ece_after: float
    """The same after calibration, measured on episodes that it was not fitted to (in five folds by task)."""
    brier_before: float
    brier_after: float


def calibrate(
    traces: TraceStore, registry: AdapterRegistry, name: str, *, run: str | None = None, split: str | None = None
) -> Calibrated:
    """Fit an adapter's calibration and write it to its card.

    An episode counts with its least sure reply: confidence is then the chance that an episode succeeds whose least
    sure reply was this one.

    Args:
        traces: Where its episodes were recorded.
        registry: Where it lies.
        name: The adapter.
        run: Only episodes of this run. Where a fallback answered for an adapter, the episode cannot be used, and what
            is left are those it was sure of: record it alone.
        split: Only tasks of this split; None takes all that are no training tasks, of which it is too sure.

    Raises:
        ConfigurationError: There are too few episodes; the message tells why the others do not count.

    Example:
        >>> from cmat_graph.traces import SQLTraceStore
        >>> calibrate(SQLTraceStore("sqlite:///t.db"), AdapterRegistry(), "assistant")  # doctest: +SKIP

    """
    card = registry.get(name)
    found, left_out = confident_episodes(traces.episodes(run=run, split=split), card, any_split=split is not None)
    if len(found) < MIN_EPISODES:
        told = "".join(f"; {reason}: {count}" for reason, count in left_out.items())
        raise ConfigurationError(
            f"{len(found)} episodes of {card.id} can be used, {MIN_EPISODES} are needed{told}; "
            f"record more with: cmat-graph run --adapter {card.id} --split test"
        )
    raw = [confidence for _, confidence, _ in found]
    solved = [success for _, _, success in found]
    after = _held_out(found)
    calibration = Calibration.fit(raw, solved)
    return Calibrated(
        card=registry.update(replace(card, calibration=calibration.to_dict())),
        episodes=len(found),
        success_rate=sum(solved) / len(solved),
        ece_before=expected_calibration_error(raw, solved),
        ece_after=expected_calibration_error(after, solved),
        brier_before=brier_score(raw, solved),
        brier_after=brier_score(after, solved),
    )


def confident_episodes(
    episodes: Iterable[Episode], card: AdapterCard, *, any_split: bool = False
) -> tuple[list[tuple[str, float, bool]], Counter[str]]:
    """Return task, least raw confidence and success of each episode that an adapter played, and why others are out."""
    found: list[tuple[str, float, bool]] = []
    left_out: Counter[str] = Counter()
    for episode in episodes:
        steps = [s for s in episode.steps if s.node == card.node and s.attempt == episode.attempts]
        # What was sent back was mended before it counted.
        steps = [s for s in steps if s.before is None or s.before["decision"] == "approve"]
        if not any(s.adapter == card.id for s in episode.steps):
            left_out["of other models"] += 1
        elif not any_split and is_training(episode.task.split):
            left_out["training tasks"] += 1
        elif episode.reward is None:
            left_out["without a reward"] += 1
        elif any(s.told.get("handed_over") or s.adapter != card.id for s in steps):
            left_out["another model helped"] += 1
        elif not steps or any("raw_confidence" not in s.told for s in steps):
            left_out["recorded without confidence"] += 1
        else:
            found.append((episode.task.id, min(s.told["raw_confidence"] for s in steps), episode.solved))
    return found, left_out


def _held_out(found: list[tuple[str, float, bool]]) -> list[float]:
    """Return each episode's confidence by a calibration that was fitted to other tasks."""
    fold = [int(hashlib.sha256(task.encode()).hexdigest(), 16) % _FOLDS for task, _, _ in found]
    fitted = {}
    for each in set(fold):
        others = [(raw, solved) for (_, raw, solved), at in zip(found, fold, strict=True) if at != each]
        others = others or [(raw, solved) for _, raw, solved in found]
        fitted[each] = Calibration.fit([raw for raw, _ in others], [solved for _, solved in others])
    return [fitted[at].of(raw) for (_, raw, _), at in zip(found, fold, strict=True)]
