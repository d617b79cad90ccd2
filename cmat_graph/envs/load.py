"""Open an environment by its name: `load_env("database", tasks="tasks.jsonl")`."""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, overload

from cmat_graph.errors import ConfigurationError
from cmat_graph.types import Env

if TYPE_CHECKING:  # each environment's own libraries load with it alone
    from cmat_graph.envs.database import DatabaseEnv
    from cmat_graph.envs.household import HouseholdEnv
    from cmat_graph.envs.knowledge import KnowledgeEnv
    from cmat_graph.envs.questions import QuestionsEnv
    from cmat_graph.envs.shell import ShellEnv
    from cmat_graph.envs.web import WebEnv
    from cmat_graph.envs.webshop import WebShopEnv

_ROOMS = {
    "database": "database",
    "os": "shell",
    "knowledge": "knowledge",
    "household": "household",
    "webshop": "webshop",
    "web": "web",
    "questions": "questions",
}
ENVIRONMENTS = tuple(_ROOMS)
"""The names that `load_env` knows."""

Path = str | os.PathLike[str]


@overload
def load_env(name: Literal["database"] = ..., *, tasks: Path = ..., **options: Any) -> DatabaseEnv: ...
@overload
def load_env(name: Literal["os"], *, tasks: Path = ..., **options: Any) -> ShellEnv: ...
@overload
def load_env(name: Literal["knowledge"], *, tasks: Path = ..., **options: Any) -> KnowledgeEnv: ...
@overload
def load_env(name: Literal["household"], *, tasks: Path = ..., **options: Any) -> HouseholdEnv: ...
@overload
def load_env(name: Literal["webshop"], *, tasks: Path = ..., **options: Any) -> WebShopEnv: ...
@overload
def load_env(name: Literal["web"], *, tasks: Path = ..., **options: Any) -> WebEnv: ...
@overload
def load_env(name: Literal["questions"], *, tasks: Path = ..., **options: Any) -> QuestionsEnv: ...
@overload
def load_env(name: str, *, tasks: Path = ..., **options: Any) -> Env: ...


def load_env(name: str = "database", *, tasks: Path = "builtin", **options: Any) -> Env:
    """Open an environment with its tasks.

    Args:
        name: One of `ENVIRONMENTS`.
        tasks: A JSONL file (plain or gzipped), or `"builtin"` for tasks that this project generates. Questions also
            come as a folder of JSON files, as MATH has it; web tasks as `"live"`, in a browser.
        options: Of every environment: `seed` and `size` of the built-in tasks (7 and 512), and `data`, a folder with
            what a task file needs and does not find beside it. Others are the environment's own, such as `url` of
            `"database"`; see its `open_env`.

    Raises:
        ConfigurationError: The environment is unknown, or the arguments do not fit it.
        TaskFileError: The file is missing or malformed; the message names the line.

    Example:
        >>> env = load_env("database", seed=1, size=40)
        >>> len(env.tasks("train")), len(env.tasks("test"))
        (32, 8)

    """
    if name not in _ROOMS:
        raise ConfigurationError(f"unknown environment {name!r}; known: {', '.join(ENVIRONMENTS)}")
    open_env = import_module(f"cmat_graph.envs.{_ROOMS[name]}").open_env
    known = [each for each in inspect.signature(open_env).parameters if each != "tasks"]
    if unknown := [each for each in options if each not in known]:
        raise ConfigurationError(f"{name!r} has no option {unknown[0]!r}; it has: {', '.join(known)}")
    for each in ("seed", "size"):
        value = options.get(each, 1)
        if not isinstance(value, Integral) or isinstance(value, bool) or (each == "size" and value < 1):
            least = " of 1 or more" if each == "size" else ""
            raise ConfigurationError(f"{each} is a whole number{least}, not {value!r}")
    env: Env = open_env(os.fspath(tasks), **options)
    return env
