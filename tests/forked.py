"""Processes that tests kill, forked from one that has everything imported: that is most of such a short life."""

from __future__ import annotations

import multiprocessing
import os
import socket
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
    (done,) = _run(function, words, [{}], timeout)
    return done


def run_ranks(
    number: int, function: Callable[..., Any], *words: Any, timeout: float = 280
) -> list[subprocess.CompletedProcess[str]]:
    """Call it in several processes that know their places, as torchrun tells them; return how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        shared[name] = str(number)
    places = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
    return _run(function, words, places, timeout)


def _run(
    function: Callable[..., Any], words: tuple[Any, ...], settings: list[dict[str, str]], timeout: float
) -> list[subprocess.CompletedProcess[str]]:
    with tempfile.TemporaryDirectory() as folder:
        texts = [(Path(folder, f"out-{number}"), Path(folder, f"err-{number}")) for number in range(len(settings))]
        children = [
            _processes.Process(target=_live, args=(function, words, told, *files))
            for told, files in zip(settings, texts, strict=True)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(timeout)
        if late := [child for child in children if child.exitcode is None]:
            for child in late:
                child.kill()
            raise TimeoutError(f"{function.__qualname__}{words} took over {timeout} s: {texts[0][1].read_text()}")
        return [
            subprocess.CompletedProcess(words, child.exitcode, out.read_text(), err.read_text())
            for child, (out, err) in zip(children, texts, strict=True)
        ]


def _live(function: Callable[..., Any], words: tuple[Any, ...], told: dict[str, str], out: Path, err: Path) -> None:
    for file, number in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), number)
    os.environ.update(told)
    function(*words)
    sys.stdout.flush()
