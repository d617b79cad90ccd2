"""Processes that tests kill, forked from one that has everything imported: that is most of such a short life."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAVY = ["cmat_graph.models", "cmat_graph.models.engine", "cmat_graph.tuning.train", "cmat_graph.traces.sql", "trl"]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(HEAVY)


def run(function: Callable[..., Any], *words: Any, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Call a module's function in a process of its own; return how it ended and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = _processes.Process(target=_live, args=(function, words, out, err))
        child.start()
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            raise TimeoutError(f"{function.__qualname__}{words} took over {timeout} s: {err.read_text()}")
        return subprocess.CompletedProcess(words, child.exitcode, out.read_text(), err.read_text())


def _live(function: Callable[..., Any], words: tuple[Any, ...], out: Path, err: Path) -> None:
    for file, number in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), number)
    function(*words)
    sys.stdout.flush()
