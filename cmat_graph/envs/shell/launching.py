"""Starting a sandbox's first process so that it ends with this one, and finding and ending what runs below it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

_lock = threading.Lock()
_launcher: ThreadPoolExecutor | None = None
_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def launch(call: Sequence[str], *, pass_fds: Sequence[int], errors: int) -> subprocess.Popen[bytes]:
    """Start a process that the kernel kills when this one dies.

    Linux means the *thread* that started it: so one thread, which lives as long as this process, starts them all. It is
    a session of its own: no key of the terminal reaches it, and its share of the processors is its own (see `watch`).
    """
    return _thread().submit(_launch, call, pass_fds, errors).result()


def _launch(call: Sequence[str], pass_fds: Sequence[int], errors: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        call,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        pass_fds=pass_fds,
        env=_ENV,
        cwd="/",
        start_new_session=True,
    )


def _thread() -> ThreadPoolExecutor:
    global _launcher
    with _lock:
        if _launcher is None:
            _launcher = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
        return _launcher


def _forked() -> None:
    global _launcher, _lock
    _launcher, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forked)


def forget(process: subprocess.Popen[bytes]) -> None:
    """End a process whose owner is gone without closing it."""
    process.kill()
    process.wait()


def memory_file(content: bytes) -> int:
    """Return a file in memory, wound back to its start."""
    fd = os.memfd_create("cmat", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_all(fd: int) -> str:
    """Return what was written to a memory file, the last line of it."""
    os.lseek(fd, 0, os.SEEK_SET)
    lines = os.read(fd, 65_536).decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


def children(pid: int) -> list[int]:
    """List the children of a process; none where it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


def below(pid: int) -> Iterator[int]:
    """Yield every process below one."""
    todo = children(pid)
    while todo:
        each = todo.pop()
        yield each
        todo += children(each)


def child_of(pid: int) -> int:
    """Return the one child of a process, which is the keeper where `unshare` started it."""
    return next(iter(children(pid)), pid)


def kill_below(pid: int) -> None:
    """Kill a process and all below it."""
    for each in [pid, *below(pid)]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)
