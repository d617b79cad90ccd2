"""Recorded debates, one by one, with a count of those that teach nothing and a guard against held-out tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from cmat_graph.splits import TRAINED_ON, assert_disjoint
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import hash_task
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.transcript import Transcript, is_debate, read_kind
from cmat_graph.types import Episode, Task


class Reader:
    """Reads the debates of a run.

    Args:
        traces: Where they are.
        run: Label of the run; None reads all.
        settings: The rules.
        held_out: Tasks that the result is measured on.
        voted: Whether debates without a consensus are left out.

    """

    def __init__(
        self,
        traces: TraceStore,
        run: str | None,
        settings: DebateSetSettings,
        held_out: Collection[Task] = (),
        *,
        voted: bool = True,
    ) -> None:
        self._traces, self._run, self._settings, self._voted = traces, run, settings, voted
        self._held_out = {name for task in held_out for name in _names(task)}
        self.read = 0
        self.used = 0
        self.left: Counter[str] = Counter()
        """How many questions were left out, by reason."""
        self._agreements: list[float] = []
        self._scored: list[bool] = []
        self._labels: dict[str, str] = {}
        self._contradictory: set[str] = set()

    def __iter__(self) -> Iterator[Transcript]:
        """Read them, oldest first.

        Raises:
            LeakError: One of the training tasks is held out.

        """
        for episode in self._traces.episodes(run=self._run):
            self.read += 1
            debate, why = self._take(episode)
            if debate is None:
                self.left[why] += 1
                continue
            self.used += 1
            self._note(debate)
            yield debate

    def _take(self, episode: Episode) -> tuple[Transcript | None, str]:
        task, settings = episode.task, self._settings
        if not is_debate(episode):
            return None, "no debate"
        if task.split not in TRAINED_ON:
            return None, "split for evaluation"
        assert_disjoint(_names(task), self._held_out)
        if episode.stopped != "ended":
            return None, "broke off" if episode.stopped == "running" else "every call failed"
        kind = read_kind(episode, settings.kind)
        if kind is None:
            return None, "kind of answer unknown: give settings.kind"
        if self._voted and not episode.answer:
            return None, "no readable consensus"
        debate = Transcript(episode, kind)
        if self._voted and debate.agreement < settings.minimum_agreement:
            return None, f"agreement below {settings.minimum_agreement:g}"
        return debate, ""

    def _note(self, debate: Transcript) -> None:
        episode = debate.episode
        self._agreements.append(debate.agreement)
        if episode.reward is not None:
            self._scored.append(episode.reward >= 1.0)
        known = self._labels.setdefault(name := _names(episode.task)[-1], debate.consensus)
        if known != debate.consensus and not (known and debate.kind.same(known, debate.consensus)):
            self._contradictory.add(name)

    def told(self) -> dict[str, Any]:
        """Return what is known of the questions and of their pseudo-labels; gold is only counted, never used."""
        return {
            "questions": {
                "read": self.read,
                "used": self.used,
                "left_out": dict(sorted(self.left.items())),
                "contradictory": len(self._contradictory),
            },
            "pseudo_labels": {
                "agreement": _mean(self._agreements),
                "unanimous": _mean([share == 1.0 for share in self._agreements]),
                "scored": len(self._scored),
                "accuracy": _mean(self._scored),
            },
        }


def _names(task: Task) -> tuple[str, ...]:
    """Return by what a task is known again: its id, and its text's hash where it has a text."""
    return (task.id, hash_task(task.prompt)) if task.prompt.strip() else (task.id,)


def _mean(values: Collection[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
