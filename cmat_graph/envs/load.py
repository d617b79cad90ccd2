"""Open an environment by its name: `load_env("database", tasks="tasks.jsonl")`."""

from __future__ import annotations

import os

from cmat_graph.envs.database import DatabaseEnv
from cmat_graph.envs.dbbench import read_records
from cmat_graph.envs.generated import generate_records
from cmat_graph.errors import ConfigurationError

ENVIRONMENTS = ("database",)
BUILTIN_ROUNDS = 6
"""Actions allowed for a built-in task, which takes two."""


def load_env(
    name: str = "database",
    *,
    tasks: str | os.PathLike[str] = "builtin",
    url: str | None = None,
    seed: int = 7,
    size: int = 512,
) -> DatabaseEnv:
    """Open an environment with its tasks.

    Args:
        name: One of `ENVIRONMENTS`.
        tasks: A JSONL file (plain or gzipped), or `"builtin"` for tasks that this project generates.
        url: SQLAlchemy URL of a database of your own to play in; every attempt is rolled back.
        seed: Seed of the built-in tasks.
        size: How many built-in tasks to make; three quarters are the `train` split, the rest `test`.

    Raises:
        ConfigurationError: The environment is unknown.
        TaskFileError: The file is missing or malformed; the message names the line.

    Example:
        >>> env = load_env("database", seed=1, size=40)
        >>> len(env.tasks("train")), len(env.tasks("test"))
        (30, 10)

    """
    if name not in ENVIRONMENTS:
        raise ConfigurationError(f"unknown environment {name!r}; known: {', '.join(ENVIRONMENTS)}")
    if os.fspath(tasks) == "builtin":
        if url is not None:
            raise ConfigurationError("built-in tasks bring their own tables; give a task file with your database URL")
        return DatabaseEnv(generate_records(size, seed=seed), max_rounds=BUILTIN_ROUNDS)
    return DatabaseEnv(read_records(tasks), url=url)
