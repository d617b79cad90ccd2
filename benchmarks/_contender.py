"""Another program that wants the processor: torch multiplying matrices in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

LOOP = """
import sys, torch
if threads := int(sys.argv[1]):
    torch.set_num_threads(threads)
a = torch.rand(512, 512)
print(a @ a is None, flush=True)
while True:
    a @ a
"""


class Contender:
    """Such a process; it rests until it is told to work."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._wall = self._cpu = 0.0
        self._began = (0.0, 0.0)
        process.suspend()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let it work meanwhile."""
        self._process.resume()
        time.sleep(0.2)
        self._began = (time.perf_counter(), self._taken())
        try:
            yield
        finally:
            self._wall += time.perf_counter() - self._began[0]
            self._cpu += self._taken() - self._began[1]
            self._process.suspend()

    @property
    def cores(self) -> float:
        """How many cores it really had while it worked."""
        return self._cpu / self._wall if self._wall else 0.0

    def _taken(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def contender(threads: int = 0) -> Iterator[Contender]:
    """Start one with its own settings of threads: 0 is as many as torch takes by itself."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    with subprocess.Popen([sys.executable, "-c", LOOP, str(threads)], stdout=subprocess.PIPE, env=own) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield Contender(psutil.Process(process.pid))
        finally:
            process.kill()
