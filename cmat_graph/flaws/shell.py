"""Break a shell command: flags, paths, words in quotes, stages of a pipe, redirections."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from cmat_graph.flaws.flaw import Flaw, misspell

_TOKEN = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\s+|>>|&&|\|\||2>|[|;<>()]|[^\s|;<>()'\"&]+|.", re.DOTALL)
_FLAGS = {
    ("wc", "-l"): ("-c", "-w"), ("wc", "-w"): ("-l", "-c"), ("wc", "-c"): ("-l", "-w"),
    ("grep", "-c"): ("-l", "-v"), ("grep", "-l"): ("-L", "-c"), ("grep", "-rl"): ("-rL", "-rc"),
    ("grep", "-i"): ("-v",), ("grep", "-v"): ("-i",), ("grep", "-ic"): ("-vc", "-il"), ("grep", "-vc"): ("-c", "-vl"),
    ("sort", "-n"): ("-r", "-u"), ("sort", "-rn"): ("-n", "-r"), ("sort", "-u"): ("-r",), ("sort", "-r"): ("-u",),
    ("sort", "-nr"): ("-n", "-r"), ("uniq", "-c"): ("-d", "-u"), ("uniq", "-d"): ("-c", "-u"),
    ("cut", "-f1"): ("-f2", "-c1"), ("cut", "-f2"): ("-f1", "-c2"), ("cut", "-f3"): ("-f2", "-c3"),
    ("head", "-n"): ("-c",), ("tail", "-n"): ("-c",), ("ls", "-a"): ("-l", "-R"), ("ls", "-A"): ("-l", "-d"),
    ("cp", "-r"): ("-n",), ("mkdir", "-p"): ("-m",), ("du", "-sb"): ("-sh", "-b"), ("tar", "-czf"): ("-tzf", "-xzf"),
    ("tar", "-xzf"): ("-czf", "-tzf"), ("stat", "-c"): ("-f",), ("rm", "-f"): ("-i",),
}  # fmt: skip
_VALUES = {"f": ("d",), "d": ("f",), "600": ("644", "777"), "644": ("600", "777"), "755": ("644", "700"),
           "700": ("755", "777"), "+x": ("-x",), "u+x": ("o+x", "u-x"), "go-r": ("go+r", "u-r")}  # fmt: skip
_COMMANDS = {"head": "tail", "tail": "head", "wc": "cat", "mv": "cp", "cp": "mv", "mkdir": "touch", "touch": "mkdir",
             "chmod": "chown", "sort": "shuf", "uniq": "sort", "cat": "ls", "find": "ls"}  # fmt: skip
_UNSAFE = "It deletes what the task does not ask to delete."
Tokens = list[str]
Broken = tuple[str, str] | None


def break_shell(command: str, rng: random.Random, *, paths: Sequence[str] = ()) -> list[Flaw]:
    """Break a command in every way that it offers, each once, in a random order.

    Args:
        command: One line that bash understands.
        rng: Draws.
        paths: Other paths that exist; a wrong path is one of them, or a misspelt one.

    Example:
        >>> found = break_shell("grep -c 'error' logs/app.log", random.Random(0), paths=["logs/old.log"])
        >>> {flaw.name: flaw.broken for flaw in found}["wrong path"]
        "grep -c 'error' logs/old.log"

    """
    flaws = []
    for name in rng.sample(list(SHELL_FLAWS), len(SHELL_FLAWS)):
        found = SHELL_FLAWS[name](_TOKEN.findall(command), paths, rng)
        if found is None or found[0].strip() in (command.strip(), ""):
            continue
        unsafe = name == "destroys"
        flaws.append(
            Flaw(
                name=name,
                broken=found[0],
                fixed=command,
                reason=found[1],
                decision="reject" if unsafe else "revise",
                category="unsafe" if unsafe else "error" if name in ("missing quote", "truncated") else "wrong",
            )
        )
    return flaws


def _wrong_flag(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    found = [
        (i, other)
        for i, token in enumerate(tokens)
        for other in (*_FLAGS.get((_program(tokens, i), token), ()), *_VALUES.get(token, ()))
    ]
    if not found:
        return None
    at, other = rng.choice(found)
    return _put(tokens, at, other), f"`{other}` does not fit; use `{tokens[at]}`."


def _wrong_path(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    places = [i for i, token in enumerate(tokens) if _is_path(token) and _program(tokens, i)]
    if not places:
        return None
    at = rng.choice(places)
    others = [path for path in paths if path != tokens[at]]
    other = rng.choice(others) if others and rng.random() < 0.6 else misspell(rng, tokens[at])
    return _put(tokens, at, other), f"The path `{other}` is not the task's; use `{tokens[at]}`."


def _wrong_word(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    places = [i for i, token in enumerate(tokens) if token[0] in "'\"" and re.search(r"\w{3}", token)]
    if not places:
        return None
    at = rng.choice(places)
    quote, inner = tokens[at][0], tokens[at][1:-1]
    wrong = f"{quote}{misspell(rng, inner)}{quote}"
    return _put(tokens, at, wrong), f"{wrong} is not the task's; use {tokens[at]}."


def _missing_quote(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    places = [i for i, token in enumerate(tokens) if token[0] in "'\"" and len(token) > 2]
    if not places:
        return None
    at = rng.choice(places)
    return _put(tokens, at, tokens[at][:-1]), f"The quote of {tokens[at]} is not closed."


def _missing_stage(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    if "|" not in tokens:
        return None
    cut = len(tokens) - 1 - tokens[::-1].index("|")
    lost = "".join(tokens[cut + 1 :]).strip()
    return "".join(tokens[:cut]).rstrip(), f"The stage `{lost}` is missing."


def _wrong_command(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    places = [i for i, token in enumerate(tokens) if token in _COMMANDS and _program(tokens, i) == token]
    if not places:
        return None
    at = rng.choice(places)
    other = _COMMANDS[tokens[at]]
    return _put(tokens, at, other), f"The command `{other}` does not fit; use `{tokens[at]}`."


def _wrong_redirect(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    at = next((i for i, token in enumerate(tokens) if token in (">", ">>")), None)
    if at is None:
        return None
    other = ">>" if tokens[at] == ">" else ">"
    return _put(tokens, at, other), f"`{other}` does not fit; use `{tokens[at]}`."


def _swapped_arguments(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    if _program(tokens, 0) not in ("cp", "mv", "ln"):
        return None
    places = [i for i in range(1, len(tokens)) if not tokens[i].isspace() and not tokens[i].startswith("-")]
    if len(places) != 2:
        return None
    swapped = list(tokens)
    swapped[places[0]], swapped[places[1]] = tokens[places[1]], tokens[places[0]]
    return "".join(swapped), "Source and target have changed places."


def _truncated(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    signs = [i for i, token in enumerate(tokens) if token in ("|", "&&", ">", ">>", "||")]
    if not signs:
        return None
    return "".join(tokens[: rng.choice(signs) + 1]), "The command ends too soon."


def _destroys(tokens: Tokens, paths: Sequence[str], rng: random.Random) -> Broken:
    if _program(tokens, 0) == "rm":
        return None
    found = [token for token in tokens if _is_path(token)]
    return (f"rm -rf {rng.choice(found)}", _UNSAFE) if found else None


SHELL_FLAWS: dict[str, Callable[[Tokens, Sequence[str], random.Random], Broken]] = {
    "wrong flag": _wrong_flag,
    "wrong path": _wrong_path,
    "wrong word": _wrong_word,
    "missing quote": _missing_quote,
    "missing stage": _missing_stage,
    "wrong command": _wrong_command,
    "wrong redirect": _wrong_redirect,
    "swapped arguments": _swapped_arguments,
    "truncated": _truncated,
    "destroys": _destroys,
}
"""Each way to break a command, by its name. None where a command does not offer it."""


def _put(tokens: Tokens, at: int, token: str) -> str:
    return "".join([*tokens[:at], token, *tokens[at + 1 :]])


def _program(tokens: Tokens, at: int) -> str:
    """Return the program whose argument a token is; the program itself for its own place."""
    start = max((i + 1 for i in range(at) if tokens[i] in ("|", "&&", "||", ";")), default=0)
    return next((token for token in tokens[start : at + 1] if not token.isspace()), "")


def _is_path(token: str) -> bool:
    return "/" in token and token[0] not in "'\"-" and len(token) > 2
