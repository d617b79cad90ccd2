"""Small shell tasks with gold commands over a generated folder: what a terminal user is asked every day.

AgentBench's shell tasks come without gold commands that could be handed on, so these are this project's own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

WORDS = "error warning login timeout payment refund order cache queue retry upload invoice".split()
NAMES = "app server worker mail report audit sales backup access batch".split()
FOLDERS = "logs data notes etc src archive shared incoming".split()
PEOPLE = "ada ben cleo dora eli finn greta hugo".split()
SUFFIXES = (".log", ".txt", ".csv", ".conf")
Files = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellTask:
    """One task: what is asked, the folder it is asked in, and the command that does it."""

    id: str
    words: str
    files: Files
    """Relative path to text."""
    command: str
    split: str


def generate_shell_tasks(size: int, *, seed: int = 0) -> list[ShellTask]:
    """Make tasks, three quarters `train` and one quarter `test`; no text occurs twice.

    Example:
        >>> len({task.words for task in generate_shell_tasks(40)})
        40

    """
    rng = random.Random(f"shell:{seed}")
    made: dict[str, ShellTask] = {}
    while len(made) < size:
        files = _draw_files(rng)
        words, command = rng.choice(_ASKED)(rng, files)
        digest = hashlib.sha256(f"{seed}:{words}".encode()).hexdigest()[:12]
        split = "test" if int(digest[:8], 16) % 4 == 0 else "train"
        made.setdefault(words, ShellTask(id=f"sh-{digest}", words=words, files=files, command=command, split=split))
    return list(made.values())


def _draw_files(rng: random.Random) -> Files:
    """Draw a folder whose files differ in lines, words, numbers and repeated lines."""
    files: Files = {}
    for _ in range(rng.randint(4, 7)):
        path = f"{rng.choice(FOLDERS)}/{rng.choice(NAMES)}{rng.choice(('', rng.randint(1, 9)))}{rng.choice(SUFFIXES)}"
        rows = []
        for _ in range(rng.randint(5, 14)):
            rows.append(f"{rng.choice(PEOPLE)} {rng.choice(WORDS)} {rng.randint(1, 99)}")
        files[path] = "\n".join([*rows, rng.choice(rows)]) + "\n"
    return files


def _path(rng: random.Random, files: Files) -> str:
    return rng.choice(sorted(files))


def _count_lines(rng: random.Random, files: Files) -> tuple[str, str]:
    path = _path(rng, files)
    return rng.choice((f"How many lines does {path} have?", f"Count the lines of {path}.")), f"wc -l {path}"


def _count_word(rng: random.Random, files: Files) -> tuple[str, str]:
    path, word = _path(rng, files), rng.choice(WORDS)
    asked = (f"How many lines of {path} contain '{word}'?", f"Count the lines with '{word}' in {path}.")
    return rng.choice(asked), f"grep -c '{word}' {path}"


def _lines_of(rng: random.Random, files: Files) -> tuple[str, str]:
    path, word = _path(rng, files), rng.choice(WORDS)
    return f"Show the lines of {path} without '{word}'.", f"grep -v '{word}' {path}"


def _who_most(rng: random.Random, files: Files) -> tuple[str, str]:
    path = _path(rng, files)
    command = f"cut -d' ' -f1 {path} | sort | uniq -c | sort -rn | head -n 1"
    return f"Which name stands first on the most lines of {path}, and how often?", command


def _distinct(rng: random.Random, files: Files) -> tuple[str, str]:
    path = _path(rng, files)
    return f"How many different names stand first on a line of {path}?", f"cut -d' ' -f1 {path} | sort -u | wc -l"


def _largest(rng: random.Random, files: Files) -> tuple[str, str]:
    path = _path(rng, files)
    return f"What is the largest number at the end of a line of {path}?", (
        f"cut -d' ' -f3 {path} | sort -n | tail -n 1"
    )


def _find(rng: random.Random, files: Files) -> tuple[str, str]:
    folder = _path(rng, files).split("/")[0]
    suffix = rng.choice(SUFFIXES)
    return f"How many {suffix} files are below {folder}/?", f"find {folder}/ -type f -name '*{suffix}' | wc -l"


def _files_with(rng: random.Random, files: Files) -> tuple[str, str]:
    folder, word = _path(rng, files).split("/")[0], rng.choice(WORDS)
    return f"Name the files below {folder}/ that contain '{word}'.", f"grep -rl '{word}' {folder}/"


def _copy(rng: random.Random, files: Files) -> tuple[str, str]:
    path, name = _path(rng, files), rng.choice(NAMES)
    return f"Copy {path} to {name}/copy.txt; make the folder.", f"mkdir -p {name}/ && cp {path} {name}/copy.txt"


def _rename(rng: random.Random, files: Files) -> tuple[str, str]:
    path, name = _path(rng, files), rng.choice(NAMES)
    target = f"{path.split('/')[0]}/{name}.old"
    return f"Rename {path} to {target}.", f"mv {path} {target}"


def _mode(rng: random.Random, files: Files) -> tuple[str, str]:
    path, mode = _path(rng, files), rng.choice(("600", "644", "700", "755"))
    said = {
        "600": "only its owner may read and write it",
        "644": "all may read it and its owner may write it",
        "700": "only its owner may read, write and run it",
        "755": "all may read and run it, and its owner may write it",
    }[mode]
    return f"Set the rights of {path} so that {said}.", f"chmod {mode} {path}"


def _append(rng: random.Random, files: Files) -> tuple[str, str]:
    path, line = _path(rng, files), f"{rng.choice(PEOPLE)} {rng.choice(WORDS)} {rng.randint(1, 99)}"
    return f"Add the line '{line}' to the end of {path}.", f"echo '{line}' >> {path}"


def _first_lines(rng: random.Random, files: Files) -> tuple[str, str]:
    path, count = _path(rng, files), rng.randint(2, 4)
    first = rng.random() < 0.5
    words = f"Write the {'first' if first else 'last'} {count} lines of {path} to part.txt."
    return words, f"{'head' if first else 'tail'} -n {count} {path} > part.txt"


_ASKED: tuple[Callable[[random.Random, Files], tuple[str, str]], ...] = (
    _count_lines, _count_word, _lines_of, _who_most, _distinct, _largest, _find, _files_with, _copy, _rename, _mode,
    _append, _first_lines,
)  # fmt: skip
