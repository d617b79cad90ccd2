"""Exercises from shell tasks. Each broken command was run in a folder of its own and does something else."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cmat_graph.drills.drill import Chooser, Drill
from cmat_graph.drills.shell_tasks import Files, ShellTask
from cmat_graph.errors import ConfigurationError
from cmat_graph.flaws import Flaw, break_shell
from cmat_graph.types import Task

SECONDS = 5.0
RULES = """\
The environment is a shell in a folder. Each of your turns is a thought and one command:
Thought: what the command does
Action: bash
```bash
wc -l notes/list.txt
```"""
_OUTSIDE = re.compile(r"(^|[\s'\"=:>])(/|~|\.\.)|/\.\.|\$")
"""A way out of the folder: an absolute path, the home, a parent, a variable. No command of ours has one."""


def shell_drills(tasks: Iterable[ShellTask], *, flaws_each: int = 1, seed: int = 0) -> Iterator[Drill]:
    """Yield the gold command of each task and as many broken ones.

    Raises:
        ConfigurationError: This machine has no bash to run them with.

    """
    bash = shutil.which("bash")
    if bash is None:
        raise ConfigurationError("shell exercises are run before they count, and there is no bash here; install bash")
    chooser = Chooser(flaws_each)
    for task in tasks:
        rng = random.Random(f"{seed}:{task.id}")
        told = Task(id=task.id, prompt=f"{task.words}\nThe files: {', '.join(sorted(task.files))}", split=task.split)
        common: dict[str, Any] = {"task": told, "env": "shell", "rules": RULES, "fixed": task.command}
        gold = effect_of(bash, task.command, task.files)

        def is_flawed(flaw: Flaw, gold: Effect = gold, files: Files = task.files) -> bool:
            return flaw.decision == "reject" or effect_of(bash, flaw.broken, files) != gold

        yield Drill(reply=_reply(task.command), **common)
        for flaw in chooser.choose(break_shell(task.command, rng, paths=sorted(task.files)), is_flawed):
            yield Drill(reply=_reply(flaw.broken), flaw=flaw, **common)


Effect = tuple[str, int, tuple[tuple[str, int, str], ...]]
"""What a command wrote, how it ended, and the files it left: path, rights, text."""


def effect_of(bash: str, command: str, files: Files) -> Effect:
    """Run a command of ours in a fresh folder; never one that a model wrote.

    Raises:
        ConfigurationError: The command could reach out of its folder.

    """
    if _OUTSIDE.search(command):
        raise ConfigurationError(f"the command {command!r} names something outside its folder; use relative paths")
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        called = [bash, "--norc", "--noprofile", "-c", command]
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": folder}
        try:
            done = subprocess.run(
                called, cwd=folder, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False
            )
            said, code = done.stdout.decode("utf-8", "replace"), done.returncode
        except subprocess.TimeoutExpired:
            said, code = "", -1
        left = tuple(
            (str(file.relative_to(folder)), file.stat().st_mode, file.read_text(encoding="utf-8", errors="replace"))
            for file in sorted(Path(folder).rglob("*"))
            if file.is_file()
        )
    return said, code, left


def _reply(command: str) -> str:
    return f"Thought: This does what is asked.\nAction: bash\n```bash\n{command}\n```"
