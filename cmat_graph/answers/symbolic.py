"""Ask a process of its own whether two expressions have one value: sympy may take for ever, or all memory.

The process is started when it is first needed, used again, and killed when it does not answer in time; the next
question starts another. No text is ever evaluated: `algebra` reads it with a grammar of its own. Without sympy (extra
`math`) nothing is asked, and only texts that the string rules make equal are.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

PROGRAM = Path(__file__).with_name("algebra.py")
SECONDS = 2.0
"""Processor time for one question; beyond it two expressions count as different."""
PATIENCE = 30.0
"""Seconds by the clock until the process counts as hung, on however busy a machine."""
MOST_FAILURES = 3
"""Starts in a row that failed, until no more are tried."""
LONGEST = 300
"""Characters of an expression."""
_NAMES = re.compile(
    r"arc(?:sin|cos|tan)|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|alpha|beta|gamma|delta|theta|lambda|mu|phi|omega"
)
_ALGEBRA = re.compile(r"[a-z0-9.+\-*/^!()\[\]|_]+")
MOST_LETTERS = 2
"""Unknowns in one expression; more is taken for a text, as the published grader does."""


def same_value(left: str, right: str) -> bool:
    """Tell whether two plain expressions are equal for all values of their letters; False where it cannot be told."""
    if max(len(left), len(right)) > LONGEST or not (_is_algebra(left) and _is_algebra(right)):
        return False
    return bool(_asked(*sorted((left, right))))


def has_sympy() -> bool:
    """Tell whether sympy is there to ask, without importing it."""
    with contextlib.suppress(ValueError):
        return find_spec("sympy") is not None
    return False  # an import that is blocked


def _is_algebra(text: str) -> bool:
    letters = set(re.findall("[a-z]", _NAMES.sub("", text))) - {"e", "i"}
    return len(letters) <= MOST_LETTERS and _ALGEBRA.fullmatch(text) is not None and "inf" not in text


@lru_cache(maxsize=8192)
def _asked(left: str, right: str) -> bool | None:
    return _worker.ask(left, right)


class Worker:
    """The process and the one conversation with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._failed = 0
        self.starts = 0
        """How many processes were started so far."""

    def ask(self, left: str, right: str) -> bool | None:
        """Return whether two expressions are equal; None where sympy is missing, fails or takes too long."""
        if self._failed >= MOST_FAILURES or not has_sympy():
            return None
        with self._lock:
            process = self._running()
            if process is None or process.stdin is None:
                return None
            try:
                process.stdin.write(json.dumps([left, right]) + "\n")
                process.stdin.flush()
                reply = self._replies.get(timeout=PATIENCE)
            except (OSError, queue.Empty):
                reply = ""
            except BaseException:  # Ctrl-C: its reply would be taken for the next one's
                self._stop()
                raise
            if not reply:  # it died of its limits, or hangs
                self._stop()
                return None
            same = json.loads(reply)
            return same if isinstance(same, bool) else None

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

    def _running(self) -> subprocess.Popen[str] | None:
        """Return the process, started if there is none that runs; None where it does not come up."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", os.fspath(PROGRAM), str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError:
            return None
        self.starts += 1
        self._replies = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process, self._replies), daemon=True, name="algebra").start()
        try:
            ready = self._replies.get(timeout=PATIENCE)
        except queue.Empty:
            ready = ""
        self._failed = 0 if ready else self._failed + 1
        if not ready:
            self._stop()
            return None
        return self._process

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


def _listen(process: subprocess.Popen[str], replies: queue.SimpleQueue[str]) -> None:
    """Pass on each line; an empty one says that no more will come."""
    with contextlib.suppress(OSError, ValueError):
        for line in process.stdout or ():
            replies.put(line)
    replies.put("")


_worker = Worker()
atexit.register(_worker.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_worker.forget)
