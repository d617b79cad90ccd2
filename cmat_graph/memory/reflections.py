"""Long-term memory: lessons in any LangGraph store, found by the task they came from."""

from __future__ import annotations

import hashlib

from langgraph.store.base import BaseStore

from cmat_graph.types import Reflection

ROOT = "reflections"


def namespace(env: str, node: str) -> tuple[str, str, str]:
    """Where the lessons of one node in one environment live."""
    return (ROOT, env or "any", node)


def remember(store: BaseStore, reflection: Reflection) -> None:
    """Keep a lesson; the same lesson from the same task is kept once."""
    key = hashlib.sha256(f"{reflection.task}\n{reflection.text}".encode()).hexdigest()[:32]
    value = {"text": reflection.text, "task": reflection.task, "attempt": reflection.attempt}
    store.put(namespace(reflection.env, reflection.node), key, value, index=["task"])


def recall(store: BaseStore, *, env: str, node: str, task: str, limit: int = 3) -> list[str]:
    """Return the lessons of the most similar tasks, without repeats."""
    found = store.search(namespace(env, node), query=task, limit=limit * 3)
    return list(dict.fromkeys(str(item.value["text"]) for item in found))[:limit]
