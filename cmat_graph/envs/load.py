"""Open an environment by its name: `load_env("database", tasks="tasks.jsonl")`."""

from __future__ import annotations

import os
from typing import Literal, Protocol, overload

import sqlalchemy as sa

from cmat_graph.envs.database import DatabaseEnv
from cmat_graph.envs.dbbench import read_records
from cmat_graph.envs.generated import generate_records
from cmat_graph.envs.questions import QuestionsEnv, generate_questions, read_questions
from cmat_graph.errors import ConfigurationError

ENVIRONMENTS = ("database", "questions")
BUILTIN_ROUNDS = 6
"""Actions allowed for a built-in task, which takes two."""


class HasEngine(Protocol):
    """langchain-community's `SQLDatabase`, as far as it is needed here."""

    _engine: sa.Engine


@overload
def load_env(
    name: Literal["database"] = "database",
    *,
    tasks: str | os.PathLike[str] = "builtin",
    url: str | HasEngine | None = None,
    seed: int = 7,
    size: int = 512,
) -> DatabaseEnv: ...


@overload
def load_env(
    name: Literal["questions"],
    *,
    tasks: str | os.PathLike[str] = "builtin",
    url: None = None,
    seed: int = 7,
    size: int = 512,
) -> QuestionsEnv: ...


@overload
def load_env(
    name: str,
    *,
    tasks: str | os.PathLike[str] = "builtin",
    url: str | HasEngine | None = None,
    seed: int = 7,
    size: int = 512,
) -> DatabaseEnv | QuestionsEnv: ...


def load_env(
    name: str = "database",
    *,
    tasks: str | os.PathLike[str] = "builtin",
    url: str | HasEngine | None = None,
    seed: int = 7,
    size: int = 512,
) -> DatabaseEnv | QuestionsEnv:
    """Open an environment with its tasks.

    Args:
        name: One of `ENVIRONMENTS`.
        tasks: A JSONL file (plain or gzipped), or `"builtin"` for tasks that this project generates. Questions also
            come as a folder of JSON files, as MATH has it.
        url: SQLAlchemy URL of a database of your own to play in, or langchain-community's `SQLDatabase` of it; every
            attempt is rolled back.
        seed: Seed of the built-in tasks.
        size: How many built-in tasks to make; of the database's three quarters are the `train` split, of the
            questions half, the rest `test`.

    Raises:
        ConfigurationError: The environment is unknown, or the arguments do not fit it.
        TaskFileError: The file is missing or malformed; the message names the line.

    Example:
        >>> env = load_env("database", seed=1, size=40)
        >>> len(env.tasks("train")), len(env.tasks("test"))
        (32, 8)

    """
    if name not in ENVIRONMENTS:
        raise ConfigurationError(f"unknown environment {name!r}; known: {', '.join(ENVIRONMENTS)}")
    builtin = os.fspath(tasks) == "builtin"
    if name == "questions":
        if url is not None:
            raise ConfigurationError("questions are asked of no database; leave out the URL")
        return QuestionsEnv(generate_questions(size, seed=seed) if builtin else read_questions(tasks))
    if builtin:
        if url is not None:
            raise ConfigurationError("built-in tasks bring their own tables; give a task file with your database URL")
        return DatabaseEnv(generate_records(size, seed=seed), max_rounds=BUILTIN_ROUNDS)
    own = url if url is None or isinstance(url, str) else _url_of(url)
    return DatabaseEnv(read_records(tasks), url=own)


def _url_of(database: HasEngine) -> str:
    url: sa.URL = database._engine.url  # langchain-community keeps it under this name only
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError("a SQLDatabase in memory cannot be opened a second time; put it into a file")
    return url.render_as_string(hide_password=False)
