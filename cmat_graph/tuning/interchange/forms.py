"""What a form of export is, and what all forms share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmat_graph.tuning.dataset import Dataset, Example, Judged, Pair, WeightedMessage
from cmat_graph.types import Message

JsonRow = dict[str, Any]


class UnfitError(Exception):
    """A row that a form cannot hold; its text is the reason that is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How rows are written for another trainer. A kind of row that it does not know is None."""

    sft: Callable[[Example], Iterator[JsonRow]]
    """Raises `UnfitError` for a conversation that the form cannot hold; so do the others."""
    pairs: Callable[[Pair], Iterator[JsonRow]] | None = None
    judged: Callable[[Judged], Iterator[JsonRow]] | None = None
    weighs: bool = False
    """True when it keeps fractions of weights; others round what is above 0 up to 1."""
    stem: Callable[[str, str, str], str] = lambda name, kind, part: f"{kind}.{part}"
    """Names a file by the export's name, the kind of its rows, and their part."""
    describe: Callable[[Path, str, Dataset, Mapping[str, Path]], list[Path]] | None = None
    """Writes what goes beside the rows, given folder, name, dataset, and the files by kind and part."""


def one_each(example: Example) -> Iterator[Example]:
    """Return a conversation for each target, which is its last message; what was learned before is context.

    The thoughts before earlier replies go: the graph's prompts do not hold them either.
    """
    for at in example.targets:
        before = [_context(message) for message in example.messages[:at]]
        yield replace(example, messages=[*before, example.messages[at]])


def whole(example: Example) -> Iterator[Example]:
    """Return the conversation up to its last target, or one for each where a thought would not be last.

    Templates show the thought of the last turn only: a joined conversation would teach earlier turns without theirs.
    """
    targets = example.targets
    if any(example.messages[at].get("reasoning") for at in targets[:-1]):
        yield from one_each(example)
    elif targets:
        messages = [_thoughtless(message, at in targets) for at, message in enumerate(example.messages)]
        yield replace(example, messages=messages[: targets[-1] + 1])


def weight_of(message: Mapping[str, Any]) -> float:
    """Return a message's share in the loss."""
    return float(message.get("weight", 0.0)) if message["role"] == "assistant" else 0.0


def with_ids(messages: Sequence[Message]) -> list[Message]:
    """Name each tool call and the result that answers it, where they were recorded without ids.

    A result that answers no call, as after a call that could not be read, is said by the user: trainers that check
    conversations refuse it otherwise.
    """
    named: list[Message] = []
    waiting: list[str] = []
    number = 0
    for message in messages:
        if calls := message.get("tool_calls"):
            ids = []
            for call in calls:
                number += 1
                ids.append(call["id"] or f"call_{number}")
            waiting = list(ids)
            message = {**message, "tool_calls": [{**c, "id": i} for c, i in zip(calls, ids, strict=True)]}
        elif message["role"] == "tool":
            id_ = message.get("tool_call_id") or (waiting[0] if waiting else "")
            if id_ in waiting:
                waiting.remove(id_)
                message = {**message, "tool_call_id": id_}
            else:
                message = {"role": "user", "content": message["content"]}
        else:
            waiting = []
        named.append(message)
    return named


def _context(message: WeightedMessage) -> WeightedMessage:
    return {k: v for k, v in message.items() if k not in ("weight", "reasoning")}  # type: ignore[return-value]


def _thoughtless(message: WeightedMessage, target: bool) -> WeightedMessage:
    if target:
        return message
    return {k: v for k, v in message.items() if k != "reasoning"}  # type: ignore[return-value]
