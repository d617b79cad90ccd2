"""What all exports of model calls share.

An imported episode is what a `TraceHandler` at the same graph would have recorded: what an action led to stands in the
prompts of later steps, and is not written a second time as an observation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from cmat_graph.traces.imports.messages import last_user, read_messages
from cmat_graph.traces.imports.settings import ImportSettings
from cmat_graph.types import Message, Step

_ASKS = ("input", "question", "query", "task", "prompt", "user_input", "text")


def without_reasoning(messages: Iterable[Message]) -> list[Message]:
    """Return a prompt as the graph would have recorded it: without earlier thoughts."""
    return [{k: v for k, v in message.items() if k != "reasoning"} for message in messages]  # type: ignore[misc]


def find_task(inputs: Any, steps: list[Step]) -> str:
    """Return the text of the task: what the user asked of the whole run, or else of its first call."""
    if isinstance(inputs, Mapping):
        if asked := last_user(read_messages(inputs["messages"])) if inputs.get("messages") else "":
            return asked
        asks = [name for name in _ASKS if isinstance(inputs.get(name), str)] or list(inputs)[: len(inputs) == 1]
        if asks and isinstance(inputs[asks[0]], str):
            return str(inputs[asks[0]])
    elif inputs and (asked := last_user(read_messages(inputs))):
        return asked
    return last_user(steps[0].messages) if steps else ""


def task_id(text: str, otherwise: str) -> str:
    """Name a task by its text, so that several traces of one task are episodes of it."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:16] if text else otherwise


def seat(metadata: Mapping[str, Any], settings: ImportSettings) -> str:
    """Return which node a call was made in, as a `Recorder` beside the graph would have named it."""
    return str(settings.node or metadata.get("cmat_node") or metadata.get("langgraph_node") or "model")[:50]


def seconds_between(start: Any, end: Any) -> float:
    """Return the seconds between two times in ISO form; 0 when one is missing."""
    try:
        took = datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))
    except (ValueError, TypeError):
        return 0.0
    return max(took.total_seconds(), 0.0)


def number(value: Any) -> int:
    """Return a count, or 0 where none was kept."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**31 else 0


def short(name: str, length: int) -> str:
    """Return a name that fits the database; a longer one is hashed, since many may begin, or end, in the same way."""
    return name if len(name) <= length else hashlib.sha256(name.encode()).hexdigest()[:32]
