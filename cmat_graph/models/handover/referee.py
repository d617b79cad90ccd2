"""Who answers an episode, how they all ended, and when that is enough to stop a candidate. Knows nothing of models."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from cmat_graph.models.handover.evidence import Tally, is_worse, log_evidence
from cmat_graph.models.handover.ledger import CANDIDATE, CURRENT, Account, Ledger

logger = logging.getLogger(__name__)

Status = Literal["running", "rolled back", "better"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How a trial stands."""

    name: str
    current: str
    candidate: str
    mode: str
    share: float
    """Of new episodes, how many the candidate answers (in shadow: is asked beside); 0 once it was rolled back."""
    status: Status
    outcomes: dict[str, Tally]
    """Episodes and successes of `current` and `candidate`."""
    evidence: dict[str, float]
    """E-values for the candidate being `worse` and `better`; 1 / alpha decides."""
    beside: dict[str, int] = field(default_factory=dict)
    """Replies of a candidate in shadow: `agreed`, `differed`, `failed`, `skipped`."""

    @classmethod
    def of(cls, name: str, account: Account) -> Self:
        """Sum up what is known."""
        about, old, new = account.about, account.tallies[CURRENT], account.tallies[CANDIDATE]
        stopped = account.verdict == "worse"
        return cls(
            name=name,
            current=str(about.get("current", "")),
            candidate=str(about.get("candidate", "")),
            mode=str(about.get("mode", "canary")),
            share=0.0 if stopped else float(about.get("share", 0.0)),
            status="rolled back" if stopped else "better" if account.verdict == "better" else "running",
            outcomes={CURRENT: old, CANDIDATE: new},
            evidence={"worse": _e_value(new, old), "better": _e_value(old, new)},
            beside=dict(account.beside),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is printed."""
        counted = {arm: {**tally._asdict(), "rate": tally.rate} for arm, tally in self.outcomes.items()}
        return {**asdict(self), "outcomes": counted}


Hook = Callable[[TrialResult], None]


class Referee:
    """Draws, counts and decides; an `outcomes.Listener`.

    Args:
        name: Tells the trials of one file apart.
        file: What is known is kept here; None: as long as the process lives.
        share: Share of episodes that is drawn.
        alpha: Chance of a wrong verdict, over all looks.
        on_worse: Called once, when the candidate is worse.
        on_better: Called once, when it is better; all episodes are drawn from then on. None: nothing changes.
        about: Kept with the trial.

    """

    def __init__(
        self,
        name: str,
        file: Path | None,
        *,
        share: float,
        alpha: float,
        on_worse: Hook | None,
        on_better: Hook | None,
        **about: Any,
    ) -> None:
        self._name, self._share, self._alpha = name, share, alpha
        self._on_worse, self._on_better = on_worse, on_better
        self._ledger = Ledger(name, file, share=share, alpha=alpha, **about)
        self._deciding = threading.Lock()

    def draw(self, episode: str) -> bool:
        """Tell whether an episode is drawn for the candidate: by its name, so always alike."""
        account = self._ledger.account()
        if account.verdict == "worse":
            return False
        share = 1.0 if account.verdict == "better" and self._on_better is not None else self._share
        number = int.from_bytes(hashlib.sha256(f"{self._name}:{episode}".encode()).digest()[:8], "big")
        return number < share * 2**64

    def arm(self, episode: str, *, canary: bool) -> str:
        """Return who answers an episode, from its first reply to its last."""
        account = self._ledger.account()
        if account.verdict == "worse":  # in the middle of an episode, too
            return CURRENT
        if episode not in account.arms:
            arm = CANDIDATE if canary and self.draw(episode) else CURRENT
            account = self._ledger.add("began", episode=episode, arm=arm)
        return account.arms[episode]

    def failed(self, episode: str, exc: Exception) -> None:
        """Count an episode in which the candidate raised; the current model goes on with it."""
        logger.warning("trial %s: the candidate failed: %s: %s", self._name, type(exc).__name__, exc)
        self._ledger.add("failed", episode=episode)
        self._decide()

    def compared(self, episode: str, result: str) -> None:
        """Count a reply of a candidate in shadow."""
        self._ledger.add("beside", episode=episode, result=result)

    def report(self, episode: str, success: bool) -> bool:
        """Count how an episode ended; False when it is unknown or known to have ended, or when the trial is over."""
        account = self._ledger.account()
        if account.verdict == "worse":  # nothing can change that, so nothing more is kept
            return False
        if episode not in account.arms:
            logger.warning("trial %s: episode %s is unknown, its outcome is not counted", self._name, episode)
            return False
        if episode in account.ended:
            return False
        self._ledger.add("ended", episode=episode, success=bool(success))
        self._decide()
        return True

    def wants(self, episode: str) -> bool:
        """Tell whether the outcome of an episode would count."""
        account = self._ledger.account()
        return account.verdict != "worse" and episode in account.arms and episode not in account.ended

    def episode_ended(self, episode: str, success: bool) -> None:
        """Count how an episode ended, if the trial had a part in it."""
        if self.wants(episode):
            self.report(episode, success)

    def result(self) -> TrialResult:
        """Return how the trial stands, with what other processes have added."""
        return TrialResult.of(self._name, self._ledger.account())

    def _decide(self) -> None:
        with self._deciding:
            account = self._ledger.account()
            old, new = account.tallies[CURRENT], account.tallies[CANDIDATE]
            if account.verdict == "worse":
                return
            if is_worse(new, old, alpha=self._alpha):
                verdict, hook = "worse", self._on_worse
            elif account.verdict != "better" and is_worse(old, new, alpha=self._alpha):
                verdict, hook = "better", self._on_better
            else:
                return
            self._ledger.add("verdict", verdict=verdict)
        told = "worse and rolled back" if verdict == "worse" else "clearly better"
        rates = f"{new.successes} of {new.episodes} episodes solved, against {old.successes} of {old.episodes}"
        logger.warning("trial %s: the candidate is %s: %s", self._name, told, rates)
        try:
            if hook is not None:
                hook(self.result())
        except Exception:  # the verdict stands, and so does the answer that led to it
            logger.exception("trial %s: what should follow its verdict failed", self._name)


def _e_value(first: Tally, second: Tally) -> float:
    return float(f"{math.exp(min(700.0, log_evidence(first, second))):.3g}")
