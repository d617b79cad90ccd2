"""Looks at every running machine ten times a second and kills what has grown too much in it.

Limits of one process do not add up to a limit of a machine, and control groups are not everywhere. So one thread of
this process sums up each machine's memory, processes and inodes; between two looks a machine can grow by what its
processors can touch in a tenth of a second. Linux gives each session an equal share of the processors, so a machine
full of busy processes would keep this thread waiting for seconds: a machine's session gets a third of the usual share.
A command that begins a session of its own has the usual share again; what one process may hold still bounds it.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cmat_graph.envs.shell.keeper import Limits
from cmat_graph.envs.shell.launching import below

PERIOD_S = 0.1
NICE = 5
"""Of a machine's session: at 3 this thread still waited for whole seconds at times, from 5 on it did not."""
_OWN = re.compile(rb"^Rss(?:Anon|Shmem):\s*(\d+) kB", re.MULTILINE)
"""Memory of a process that no file on a disk stands behind; what is shared between processes is counted in each."""
Reason = Literal["memory", "processes", "inodes"]

_lock = threading.Lock()
_watched: list[Watched] = []
_thread: threading.Thread | None = None


@dataclass(slots=True, eq=False)
class Watched:
    """One machine that is looked at."""

    pid: int
    pidfd: int
    limits: Limits
    disks: list[int] = field(default_factory=list)
    reason: Reason | None = None
    humble: bool = False

    def take_reason(self) -> Reason | None:
        """Return why it was last cut down, once."""
        reason, self.reason = self.reason, None
        return reason

    def stop(self) -> None:
        """Look at it no more."""
        with _lock:
            if self in _watched:
                _watched.remove(self)
            for disk in self.disks:
                os.close(disk)
            self.disks = []

    def look(self) -> None:
        """Kill all processes of the machine but its keeper when they hold too much together."""
        if not self.humble:
            self._step_back()
        reason = self._excess()
        if reason is not None:
            self.reason = reason
            with suppress(ProcessLookupError, OSError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGUSR1)

    def _step_back(self) -> None:
        """Lower the weight of its session, where that is not ours; Linux lets users do so ten times a second."""
        try:
            if os.getsid(self.pid) != os.getsid(0):
                Path(f"/proc/{self.pid}/autogroup").write_text(str(NICE))
        except BlockingIOError:
            return  # at the next look
        except OSError:
            pass  # no such thing on this system
        self.humble = True

    def _excess(self) -> Reason | None:
        held = count = 0
        for pid in below(self.pid):
            count += 1
            with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
                held += sum(int(size) for size in _OWN.findall(file.read())) * 1024
        if held > self.limits.memory_mb * 2**20:
            return "memory"
        if count > 2 * self.limits.processes:
            return "processes"
        for disk in self.disks:
            room = os.statvfs(disk)
            if room.f_files - room.f_ffree > self.limits.inodes:
                return "inodes"
        return None


def watch(pid: int, pidfd: int, limits: Limits, *, disks: bool = True) -> Watched:
    """Begin to look at a machine.

    Args:
        pid: Its keeper's process id.
        pidfd: The same process; told to kill all others when they hold too much.
        limits: How much that is.
        disks: Count what lies on its disks too; not where they are the host's own.

    """
    global _thread
    watched = Watched(pid=pid, pidfd=pidfd, limits=limits)
    for place in (".", "usr", "etc") if disks else ():
        with suppress(OSError):
            watched.disks.append(os.open(f"/proc/{pid}/root/{place}", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW))
    with _lock:
        _watched.append(watched)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_look, name="sandbox-watch", daemon=True)
            _thread.start()
    return watched


def _look() -> None:
    global _thread
    while True:
        time.sleep(PERIOD_S)
        with _lock:
            if not _watched:
                _thread = None
                return
            machines = list(_watched)
        for machine in machines:
            with _lock:
                if machine in _watched:  # its descriptors are open only so long
                    machine.look()


def _forked() -> None:
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    _watched.clear()


os.register_at_fork(after_in_child=_forked)
