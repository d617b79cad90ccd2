"""Games of a household, played by processes of their own (`player`) that are shared by all sessions.

A process that dies or hangs is replaced, and the game that it played is brought back by its commands.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cmat_graph.errors import EnvironmentFailure, MissingExtraError

PROGRAM = Path(__file__).with_name("player.py")
PLAYERS = min(4, os.cpu_count() or 1)
"""Processes at most; each plays many games, one move at a time."""
KEPT = {"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"}
"""Variables of the environment that the processes see, beside Python's own."""
PATIENCE = 180.0
"""Seconds until a process counts as hung, on however busy a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a game shows after a move."""

    text: str
    commands: tuple[str, ...]
    """What can be done now, sorted."""
    won: bool


class Game:
    """One game in one of the processes; started when it is first looked at.

    Args:
        key: Names the game; the same game goes to the same process, which remembers its translation.
        domain: PDDL.
        problem: PDDL.
        grammar: How states and actions are worded, in textworld's form.

    """

    _numbers = itertools.count()

    def __init__(self, key: str, *, domain: str, problem: str, grammar: str) -> None:
        self._key = key
        self._game = {"pddl_domain": domain, "grammar": grammar, "pddl_problem": problem}
        self._session = next(self._numbers)
        self._player = _players[zlib.crc32(key.encode()) % len(_players)]
        self._start = -1
        self._done: list[str] = []
        self._first = ""
        self._seen: Seen | None = None

    @property
    def first(self) -> str:
        """What the game shows at its start."""
        if not self._first:
            self._again()
        return self._first

    @property
    def seen(self) -> Seen:
        """What the game shows now."""
        if self._seen is None or not self._player.runs(self._start):
            return self._again()
        return self._seen

    def step(self, command: str) -> Seen:
        """Carry out a command.

        Raises:
            EnvironmentFailure: The game broke.

        """
        self.seen  # noqa: B018 -- brings the game back where its process died
        self._done.append(command)
        try:
            self._seen = self._ask({"do": "step", "command": command})
        except PlayerDiedError:
            self._seen = self._again()
        return self._seen

    def restart(self) -> None:
        """Put the game back to its start."""
        if self._done:
            self._done.clear()
            self._seen = None

    def close(self) -> None:
        """Give the game back."""
        if self._player.runs(self._start):
            with contextlib.suppress(PlayerDiedError):
                self._player.ask({"session": self._session, "do": "close"})
        self._start = -1

    def _again(self) -> Seen:
        """Open the game and carry out what was done in it."""
        for last in (False, True):
            try:
                self._start = self._player.begin()
                seen = self._ask({"do": "open", "game": self._game})
                self._first = seen.text
                for command in self._done:
                    seen = self._ask({"do": "step", "command": command})
                self._seen = seen
                return seen
            except PlayerDiedError as exc:
                if last:
                    raise EnvironmentFailure(f"game {self._key!r} cannot be played: {exc}") from exc
        raise AssertionError  # the loop returns or raises

    def _ask(self, request: dict[str, Any]) -> Seen:
        reply = self._player.ask({"session": self._session, **request}, start=self._start)
        if "error" in reply:
            raise EnvironmentFailure(f"game {self._key!r} cannot be played: textworld says {reply['error']}")
        return Seen(text=reply["text"], commands=tuple(reply["commands"]), won=reply["won"])


class PlayerDiedError(Exception):
    """The process ended, or did not answer."""


class Player:
    """One process, and the conversations with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._starts = 0

    def runs(self, start: int) -> bool:
        """Tell whether the process of that start is still there."""
        process = self._process
        return process is not None and start == self._starts and process.poll() is None

    def begin(self) -> int:
        """Start the process if it does not run; return the number of its start."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._run()
            return self._starts

    def ask(self, request: Mapping[str, Any], *, start: int | None = None) -> dict[str, Any]:
        """Return the reply to a request.

        Raises:
            PlayerDiedError: The process ended, did not answer, or is not the one that was started as `start`.

        """
        with self._lock:
            process = self._process
            if process is None or process.stdin is None or start not in (None, self._starts):
                raise PlayerDiedError("its process was replaced")
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            except (OSError, ValueError) as exc:
                self._stop()
                raise PlayerDiedError("its process ended") from exc
            return self._reply()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """Leave the process to the parent, in a child that was forked."""
        self._lock = threading.Lock()
        if self._process is not None:
            self._process.returncode = 0  # not this process's to wait for
            self._process = None

    def _run(self) -> None:
        self._stop()
        self._process = subprocess.Popen(
            [sys.executable, "-P", os.fspath(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=_environment(),
        )
        self._starts += 1
        self._replies = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process, self._replies), daemon=True, name="household").start()
        self._reply()

    def _reply(self) -> dict[str, Any]:
        try:
            line = self._replies.get(timeout=PATIENCE)
        except queue.Empty:
            self._stop()
            raise PlayerDiedError(f"its process did not answer within {PATIENCE:g} s") from None
        except BaseException:  # Ctrl-C: its reply would be taken for the next one's
            self._stop()
            raise
        if not line.endswith("\n"):  # none, or half of one
            self._stop()
            raise PlayerDiedError("its process ended; textworld or its planner broke down on it")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _environment() -> dict[str, str]:
    """Return what a Python needs to start, and no API keys: games are files that somebody downloaded."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(("PYTHON", "LC_"))}
    return {**kept, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}  # sets keep one order in every process


def has_textworld() -> bool:
    """Tell whether textworld and its planner are there, without importing them."""
    return not _missing()


def assert_textworld() -> None:
    """Say at once what is missing.

    Raises:
        MissingExtraError: textworld or its planner is not installed.

    """
    if name := _missing():
        raise MissingExtraError.of("household", ImportError(name, name=name))


def _missing() -> str:
    for name in ("textworld", "fast_downward"):
        found = False
        with contextlib.suppress(ValueError, ImportError):  # an import that is blocked
            found = find_spec(name) is not None
        if not found:
            return name
    return ""


def close_players() -> None:
    """End all processes; they start again when they are needed."""
    for player in _players:
        player.close()


def _forget_players() -> None:
    for player in _players:
        player.forget()


def _listen(process: subprocess.Popen[str], replies: queue.SimpleQueue[str]) -> None:
    """Pass on each line; an empty one says that no more will come."""
    with contextlib.suppress(OSError, ValueError):
        for line in process.stdout or ():
            replies.put(line)
    replies.put("")


_players = [Player() for _ in range(PLAYERS)]
atexit.register(close_players)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_players)
