"""General instructions, about no agent, which are mixed in so that a model does not forget the rest (formula F15).

A JSONL file; each line in one of the common forms: `messages` (OpenAI), `conversations` (ShareGPT), or alpaca's
`instruction`, `input` and `output`.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmat_graph.errors import DatasetError
from cmat_graph.tuning.dataset import WeightedMessage
from cmat_graph.tuning.harvest.collect import Found, digest_of
from cmat_graph.tuning.harvest.leaks import Guard
from cmat_graph.tuning.harvest.messages import seen_texts, size_of
from cmat_graph.tuning.harvest.spool import Candidate
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant"}
_KNOWN = ("system", "user", "assistant", "tool")


def add_general(
    found: Found, settings: HarvestSettings, tally: Tally, guard: Guard, *, agent_loss: float
) -> list[Candidate]:
    """Take so many general rows as give their share about the weight 1 each, or all where there are fewer.

    Args:
        found: Where the rows go.
        settings: The file, the share, and the seed by which rows are drawn.
        tally: Counts them.
        guard: Knows what is held out.
        agent_loss: Characters of the agent rows' targets, weighted.

    Raises:
        DatasetError: The file cannot be read, or a line has none of the forms.

    """
    wanted = agent_loss * (1 - settings.eta) / settings.eta if settings.eta > 0 else float("inf")
    drawn: list[tuple[bytes, int, float]] = []
    for number, messages in _read(Path(settings.general)):
        tally.took("mix", "general rows")
        size = sum(map(size_of, messages))
        if size > settings.max_chars:
            tally.left("mix", "general rows", "too long")
        elif guard.finds(seen_texts(messages), whole=next(m["content"] for m in messages if m["role"] == "user")):
            tally.left("mix", "general rows", "the text of a held-out task")
        else:
            key = hashlib.blake2b(f"{settings.seed}:{number}".encode(), digest_size=8).digest()
            drawn.append((key, number, _loss(messages)))
    drawn.sort()
    taken: set[int] = set()
    loss = 0.0
    for _, number, of_row in drawn:
        if loss >= wanted:
            break
        taken.add(number)
        loss += of_row
    tally.left("mix", "general rows", "the share is full", len(drawn) - len(taken))
    return [_put(found, messages, settings) for number, messages in _read(Path(settings.general)) if number in taken]


def _put(found: Found, messages: list[WeightedMessage], settings: HarvestSettings) -> Candidate:
    digest = digest_of(messages, [])
    name = f"general-{digest.hex()[:12]}"
    task = found.tasks.number(name, next(m["content"] for m in messages if m["role"] == "user"))
    origin = {
        "task_id": name,
        "task_hash": found.tasks.hashes[task],
        "episodes": [],
        "env": "general",
        "node": settings.node,
        "source": "general",
        "augmented": "",
    }
    row = {"messages": messages, "tools": [], "kind": "general", "origin": origin, "text": ""}
    return Candidate(
        place=found.spool.put(row),
        task=task,
        digest=digest,
        steps=1,
        chars=sum(map(size_of, messages)),
        loss=_loss(messages),
        env="general",
        kind="general",
        sketch=array("I"),
        general=True,
    )


def _loss(messages: list[WeightedMessage]) -> float:
    return float(sum(size_of(message) for message in messages if message.get("weight")))


def _read(file: Path) -> Iterator[tuple[int, list[WeightedMessage]]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        messages = _messages(json.loads(line.decode("utf-8-sig")))
                    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
                        raise DatasetError(
                            f"{file}, line {number}: {exc}; each line is an object with `messages`, `conversations`, "
                            "or `instruction` and `output`"
                        ) from exc
                    yield number, messages
    except OSError as exc:
        raise DatasetError(f"cannot read the general instructions: {exc}; name a JSONL file with --general") from exc


def _learned(turn: dict[str, Any]) -> bool:
    """Tell whether a file leaves a turn in the loss: OpenAI's `weight`, AgentInstruct's and ms-swift's `loss`."""
    return turn.get("weight") != 0 and turn.get("loss") is not False


def _messages(row: dict[str, Any]) -> list[WeightedMessage]:
    if "messages" in row:
        told = [(each["role"], each["content"], _learned(each)) for each in row["messages"]]
    elif "conversations" in row:
        told = [(each["from"], each["value"], _learned(each)) for each in row["conversations"]]
        if row.get("system"):
            told.insert(0, ("system", row["system"], False))
    else:
        asked = "\n\n".join(filter(None, [row["instruction"], row.get("input") or ""]))
        told = [("user", asked, False), ("assistant", row["output"], True)]
        if row.get("system"):
            told.insert(0, ("system", row["system"], False))
    messages: list[WeightedMessage] = []
    for name, content, learned in told:
        role = _ROLES.get(name, name)
        if role not in _KNOWN or not isinstance(content, str):
            raise ValueError(f"no text of a known role: {name!r}")
        message: WeightedMessage = {"role": role, "content": content}
        if role == "assistant" and learned and content.strip():
            message["weight"] = 1.0
        messages.append(message)
    if not any(message.get("weight") for message in messages) or all(m["role"] != "user" for m in messages):
        raise ValueError("nobody asks, or nobody answers")
    while not messages[-1].get("weight"):
        messages.pop()
    return messages
