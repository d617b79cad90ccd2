"""Long-term memory: lessons in any LangGraph store, found by the task they came from."""

from __future__ import annotations

import hashlib

from langgraph.store.base import BaseStore

from cmat_graph.types import Reflection

ROOT = "reflections"
MIN_SIMILARITY = 0.9
"""Cosine between the embeddings of two tasks from which a lesson of one is shown for the other."""


def namespace(env: str, node: str) -> tuple[str, str, str]:
    """Where the lessons of one node in one environment live."""
    return (ROOT, env or "any", node)


def remember(store: BaseStore, reflection: Reflection) -> None:
    """Keep a lesson; the same lesson from the same task is kept once."""
    key = hashlib.sha256(f"{reflection.task}\n{reflection.text}".encode()).hexdigest()[:32]
    value = {"text": reflection.text, "task": reflection.task, "attempt": reflection.attempt}
    store.put(namespace(reflection.env, reflection.node), key, value, index=["task"])


def recall(store: BaseStore, *, env: str, node: str, task: str, limit: int = 3) -> list[str]:
    """Return the lessons of the most similar tasks, without repeats; those of unlike tasks only distract."""
    found = store.search(namespace(env, node), query=task, limit=limit * 3)
    close = [item for item in found if item.score is None or item.score >= MIN_SIMILARITY]
    texts = [text for item in close if isinstance(text := item.value.get("text"), str)]
    return list(dict.fromkeys(texts))[:limit]
