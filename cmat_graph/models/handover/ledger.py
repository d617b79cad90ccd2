"""What a trial knows: which episode is whose, and how each ended. A file that is only appended to, one event a line.

So a restart goes on, and several processes share one trial: each reads what the others wrote before it decides
anything. A line that a killed process left half written is skipped.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.handover.evidence import Tally

logger = logging.getLogger(__name__)

FILE = "trial.jsonl"
"""Beside a node's adapters."""
CURRENT, CANDIDATE = "current", "candidate"


@dataclass(slots=True)
class Account:
    """What is known of one trial."""

    about: dict[str, Any] = field(default_factory=dict)
    """Who is compared, how, and since when."""
    arms: dict[str, str] = field(default_factory=dict)
    """Which of the two answers an episode."""
    ended: set[str] = field(default_factory=set)
    """Episodes whose outcome is known."""
    tallies: dict[str, Tally] = field(default_factory=lambda: {CURRENT: Tally(), CANDIDATE: Tally()})
    beside: Counter[str] = field(default_factory=Counter)
    """Replies of a candidate in shadow: `agreed`, `differed`, `failed`, `skipped`."""
    verdict: str = ""
    """`worse` once it was rolled back, `better` once it was clearly better."""

    def take(self, event: dict[str, Any]) -> None:
        """Add an event; what cannot be is left out.

        Of those that contradict each other the first stands, but for the settings: the trial goes on with the last.
        """
        kind, episode = event.get("event"), str(event.get("episode", ""))
        if kind == "started":
            self.about = _about(event) | {k: v for k, v in self.about.items() if k == "at"}
        elif kind == "began":
            self.arms.setdefault(episode, CANDIDATE if event.get("arm") == CANDIDATE else CURRENT)
        elif kind in ("ended", "failed") and episode in self.arms:
            if episode not in self.ended:
                self.ended.add(episode)
                arm = self.arms[episode]
                self.tallies[arm] = self.tallies[arm].plus(kind == "ended" and event.get("success") is True)
            if kind == "failed":  # the current model has taken it over
                self.arms[episode] = CURRENT
        elif kind == "beside":
            self.beside[str(event.get("result"))] += 1
        elif kind == "verdict" and self.verdict != "worse" and event.get("verdict") in ("worse", "better"):
            self.verdict = str(event["verdict"])


def _about(event: dict[str, Any]) -> dict[str, Any]:
    """Return who is compared and how, as far as it can be true."""
    texts = {name: event[name] for name in ("at", "mode", "current", "candidate") if isinstance(event.get(name), str)}
    numbers = {name: event[name] for name in ("share", "alpha") if isinstance(event.get(name), int | float)}
    return texts | {name: float(number) for name, number in numbers.items() if 0.0 <= number <= 1.0}


class Ledger:
    """The account of one trial, kept in a file or, without one, as long as the process lives.

    Args:
        name: Tells the trials of one file apart.
        file: Where it is kept; its folder is made.
        about: Who is compared, how; written when the trial begins.

    Raises:
        ConfigurationError: The file cannot be written.

    """

    def __init__(self, name: str, file: Path | None = None, **about: Any) -> None:
        self._name, self._file, self._read = name, file, 0
        self._account = Account()
        self._lock = threading.RLock()
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.open("ab").close()
        except OSError as exc:
            raise ConfigurationError(f"cannot keep a trial in {file}: {exc}; give a file that can be written") from exc
        known = self.account().about
        if any(known.get(setting) != value for setting, value in about.items()):
            self.add("started", at=datetime.now(UTC).isoformat(timespec="seconds"), **about)

    def account(self) -> Account:
        """Return what is known by now, to all processes."""
        with self._lock:
            if self._file is not None:
                self._catch_up(self._file)
            return self._account

    def add(self, event: str, **told: Any) -> Account:
        """Write an event; return what is known then."""
        line = {"event": event, "trial": self._name, **told}
        with self._lock:
            if self._file is None:
                self._account.take(line)
                return self._account
            try:
                # Begun on a line of its own, lest a half-written one swallow it; one write, so that no two mingle.
                with self._file.open("ab", buffering=0) as out:
                    out.write(f"\n{json.dumps(line)}\n".encode())
            except OSError as exc:  # a full disk must not break an answer
                logger.warning("the trial's file %s cannot be written: %s", self._file, exc)
                self._account.take(line)
            return self.account()

    def _catch_up(self, file: Path) -> None:
        try:
            if os.stat(file).st_size == self._read:
                return
            with file.open("rb") as lines:
                if os.fstat(lines.fileno()).st_size < self._read:  # it was emptied: the trial begins again
                    self._read, self._account = 0, Account()
                lines.seek(self._read)
                text = lines.read()
        except OSError as exc:
            logger.warning("the trial's file %s cannot be read: %s", file, exc)
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for event in _events(whole):
            if event.get("trial") == self._name:
                self._account.take(event)


def read_trials(file: Path) -> dict[str, Account]:
    """Return what a file tells of each of its trials, oldest first."""
    accounts: dict[str, Account] = {}
    for event in _events(file.read_bytes()) if file.is_file() else ():
        accounts.setdefault(str(event.get("trial", "")), Account()).take(event)
    return accounts


def _events(text: bytes) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):  # broken, or nested without end
            continue
        if isinstance(event, dict):
            found.append(event)
    return found
