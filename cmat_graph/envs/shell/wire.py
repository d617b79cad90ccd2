"""The four pipes between the host and a machine, and reading them without ever keeping more than is shown."""

from __future__ import annotations

import os
import re
import secrets
import select
import time
from contextlib import suppress
from dataclasses import dataclass, field

from cmat_graph.errors import TaskFileError

KEPT_BYTES = 16_384
"""Output that is kept of one command; the rest is read and dropped."""
FLOOD_BYTES = 64 * 2**20
"""Output after which a command is stopped."""
START_SECONDS = 20.0
_STATUS_BYTES = 65_536
_ENDED = re.compile(rb"ended (\w+) (\d+)")


@dataclass(slots=True)
class Heard:
    """What came through the two pipes while something ran."""

    output: bytearray = field(default_factory=bytearray)
    total: int = 0
    codes: list[int] = field(default_factory=list)
    """Exit codes of what the keeper ran."""
    told: list[bytes] = field(default_factory=list)
    """The shell's own reports."""


class Wire:
    """The host's ends of a machine's pipes.

    Args:
        snippets: Where the keeper reads what to do.
        scripts: Where the assistant's shell reads.
        output: What commands print.
        told: What the keeper and the shell report.

    """

    def __init__(self, *, snippets: int, scripts: int, output: int, told: int) -> None:
        self._snippets, self._scripts, self._output, self._told = snippets, scripts, output, told
        self._status = b""
        self._job = b""
        for fd in (snippets, scripts, output, told):
            os.set_blocking(fd, False)

    def send(self, snippet: str) -> None:
        """Give the keeper its next job; reports of what ran before no longer count.

        Raises:
            TaskFileError: A text of the task that is part of it holds a NUL, which would begin another job.

        """
        if "\0" in snippet:
            raise TaskFileError("a command or text of the task holds a NUL; take it out")
        self.drop_stale()
        with suppress(OSError):  # a machine that is gone is noticed when nothing comes back
            os.set_blocking(self._snippets, True)
            self._job = secrets.token_hex(16).encode()
            os.write(self._snippets, self._job + b"\0" + snippet.encode("utf-8", "surrogateescape") + b"\0")

    def listen(self, seconds: float, *, until: str = "", feed: bytes = b"") -> Heard:
        """Read both pipes until the keeper's job ends, the shell reports `until`, or time or output run out."""
        heard = Heard()
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for fd in (self._output, self._told):
            poll.register(fd, select.POLLIN)
        if feed:
            poll.register(self._scripts, select.POLLOUT)
        mark = until.encode()
        while (left := deadline - time.monotonic()) > 0 and heard.total <= FLOOD_BYTES:
            for fd, event in poll.poll(left * 1000):
                if fd == self._scripts:
                    feed = self._feed(feed)
                    if not feed:
                        poll.unregister(fd)
                elif not self._take(fd, heard, mark) and event & (select.POLLHUP | select.POLLERR):
                    poll.unregister(fd)
                    if fd == self._told:  # nobody is left
                        return heard
            if heard.told or heard.codes:
                while self._take(self._output, heard, mark):  # all that was written before the report
                    if heard.total > FLOOD_BYTES:
                        break
                return heard
        return heard

    def _feed(self, text: bytes) -> bytes:
        try:
            return text[os.write(self._scripts, text[:65_536]) :]
        except BlockingIOError:
            return text
        except OSError:
            return b""

    def _take(self, fd: int, heard: Heard, mark: bytes) -> bool:
        """Read what a pipe holds now; False when it is empty."""
        try:
            data = os.read(fd, 65_536)
        except (BlockingIOError, OSError):
            return False
        if fd == self._output:
            heard.total += len(data)
            heard.output += data[: KEPT_BYTES - len(heard.output)]
            return bool(data)
        *whole, self._status = (self._status + data).split(b"\0")
        self._status = self._status[-_STATUS_BYTES:]
        for line in whole:
            if found := _ENDED.fullmatch(line):
                if found[1] == self._job:
                    heard.codes.append(int(found[2]))
            elif mark and line.startswith(mark + b" "):
                heard.told.append(line)
        return bool(data)

    def hear(self, word: bytes) -> bool:
        """Wait for the keeper's first word."""
        deadline = time.monotonic() + START_SECONDS
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if not poll.poll(left * 1000):
                return False
            try:
                data = os.read(self._told, 4096)
            except BlockingIOError:
                continue
            self._status += data
            if not data or self._status == word + b"\0":
                said, self._status = self._status, b""
                return said == word + b"\0"
        return False

    def drop_stale(self) -> None:
        """Forget reports and output of what ran before."""
        stale = Heard()
        for fd in (self._told, self._output):
            for _ in range(64):  # what writes without end does not keep us; reports need a secret to count
                if not self._take(fd, stale, b""):
                    break
