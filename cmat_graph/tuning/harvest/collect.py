"""Read episodes once, keep the rows on disk, and remember of each what the decisions need."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cmat_graph.splits import is_validation
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import WeightedMessage, hash_task
from cmat_graph.tuning.harvest import reflections, turns, verdicts
from cmat_graph.tuning.harvest.conversation import Conversation
from cmat_graph.tuning.harvest.leaks import Guard
from cmat_graph.tuning.harvest.messages import bytes_of, name_of_action, seen_texts, size_of, texts_of
from cmat_graph.tuning.harvest.sketch import sketch
from cmat_graph.tuning.harvest.spool import Candidate, Deed, Place, Spool
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Episode

Reader = Callable[[Episode, HarvestSettings, Tally], Iterator[Conversation]]
READERS: dict[str, Reader] = {"checker": verdicts.conversations, "reflect": reflections.conversations}
"""How the steps of a node become conversations; those of any other node are turns."""

FEW_IDS = 3
"""A benchmark may hold a task twice; a text under more ids was just asked again and again."""


class Tasks:
    """Numbers tasks by their text, so that one text under two ids is one task."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.ids: list[set[str]] = []
        self._numbers: dict[str, int] = {}

    def number(self, task_id: str, text: str) -> int:
        """Return a task's number."""
        name = hash_task(text) if text.strip() else f"id:{task_id}"
        number = self._numbers.setdefault(name, len(self.hashes))
        if number == len(self.hashes):
            self.hashes.append(name)
            self.ids.append(set())
        self.ids[number].add(task_id)
        return number

    def is_validation(self, number: int, share: float) -> bool:
        """Tell whether a task is kept to choose by: one of its ids says so.

        A text under many ids has none of its own, as in traces of a graph whose every run has a new one: then its
        hash decides.
        """
        ids = self.ids[number]
        return any(is_validation(each, share) for each in (ids if len(ids) <= FEW_IDS else [self.hashes[number]]))


class Found:
    """What a harvest has found so far.

    Args:
        spool: Where the rows lie.

    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.tasks = Tasks()
        self.candidates: list[Candidate] = []
        self.deeds: list[Deed] = []
        self.nodes: Counter[str] = Counter()
        """Steps of each node that was met."""

    def add(self, conversation: Conversation, *, origin: dict[str, Any], task: int, text: str) -> None:
        """Keep a conversation: its row on disk, and what is to be remembered of it."""
        row = {
            "messages": conversation.messages,
            "tools": conversation.tools,
            "kind": conversation.kind,
            "origin": origin,
            "text": text,
        }
        place = self.spool.put(row)
        self._remember(conversation, place, task=task, text=text, env=str(origin["env"]))
        self._judge(conversation, place, task=task)

    def add_row(self, row: dict[str, Any], like: Candidate) -> Candidate:
        """Keep a row that was made from another one."""
        messages = row["messages"]
        return replace(
            like,
            place=self.spool.put(row),
            digest=digest_of(messages, row["tools"]),
            chars=sum(map(size_of, messages)),
            loss=_loss(messages),
        )

    def _remember(self, conversation: Conversation, place: Place, *, task: int, text: str, env: str) -> None:
        messages = trimmed(conversation.messages)
        if messages:
            self.candidates.append(
                Candidate(
                    place=place,
                    task=task,
                    digest=digest_of(messages, conversation.tools),
                    steps=conversation.steps,
                    chars=sum(map(size_of, messages)),
                    loss=_loss(messages),
                    env=env,
                    kind=conversation.kind,
                    side=conversation.side,
                    sketch=sketch(texts_of(messages, text)),
                )
            )

    def _judge(self, conversation: Conversation, place: Place, *, task: int) -> None:
        if not conversation.marks:
            return
        state = hashlib.blake2b(_tools(conversation.tools), digest_size=12)
        at = 0
        for mark in conversation.marks:
            for message in conversation.messages[at : mark.at]:
                state.update(bytes_of(message))
            at = mark.at
            mark.number = len(self.deeds)
            self.deeds.append(
                Deed(
                    place=place,
                    at=at,
                    task=task,
                    state=state.digest(),
                    action=hashlib.blake2b(
                        name_of_action(conversation.messages[at]).encode("utf-8", "replace"), digest_size=12
                    ).digest(),
                    good=mark.good,
                    contrast=mark.contrast or "",
                )
            )


def collect(
    traces: TraceStore,
    spool: Spool,
    *,
    settings: HarvestSettings,
    guard: Guard,
    tally: Tally,
    progress: Callable[[int, str], None] | None = None,
) -> Found:
    """Read all episodes that may be trained on.

    Args:
        traces: Where they are.
        spool: Where their rows wait.
        settings: Which ones, and of which node.
        guard: Knows what is held out.
        tally: Counts what is left out, and why.
        progress: Called with the number of episodes read.

    """
    found = Found(spool)
    read = READERS.get(settings.node, turns.conversations)
    for number, episode in enumerate(traces.episodes(run=settings.run, env=settings.env, split=settings.split), 1):
        if progress is not None and number % 50 == 0:
            progress(number, "collect")
        tally.took("collect", "episodes")
        if refused := guard.refuses(episode):
            tally.left("collect", "episodes", refused)
            continue
        found.nodes.update(step.node for step in episode.steps)
        tally.took("filter", "episodes")
        tally.took("filter", "steps", sum(step.node == settings.node for step in episode.steps))
        task = found.tasks.number(episode.task.id, episode.task.prompt)
        origin = _origin(episode, found.tasks.hashes[task], settings.node)
        made = list(read(episode, settings, tally))
        for conversation in made:
            if guard.finds(seen_texts(conversation.messages)):
                tally.left("filter", "conversations", "the text of a held-out task")
                continue
            found.add(conversation, origin=origin, task=task, text=episode.task.prompt)
        _link(found.deeds, made)
    return found


def trimmed(messages: Sequence[WeightedMessage]) -> Sequence[WeightedMessage]:
    """Return a conversation up to its last target; what comes after it teaches nothing."""
    last = max((at for at, message in enumerate(messages) if message.get("weight")), default=-1)
    return messages[: last + 1]


def digest_of(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> bytes:
    """Hash what a conversation teaches."""
    digest = hashlib.blake2b(_tools(tools), digest_size=16)
    for message in messages:
        digest.update(b"%s %r" % (bytes_of(message), message.get("weight", 0.0)))
    return digest.digest()


def _loss(messages: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(message.get("weight", 0.0)) * size_of(message) for message in messages)


def _link(deeds: list[Deed], made: Sequence[Conversation]) -> None:
    for conversation in made:
        for mark in conversation.marks:
            if mark.mended is not None and mark.number >= 0:
                deeds[mark.number].mended = mark.mended.number


def _origin(episode: Episode, task_hash: str, node: str) -> dict[str, Any]:
    return {
        "task_id": episode.task.id,
        "task_hash": "" if task_hash.startswith("id:") else task_hash,
        "episodes": [episode.id],
        "env": episode.env,
        "node": node,
        "source": "agent",
        "augmented": "",
    }


def _tools(tools: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps(tools, sort_keys=True).encode() if tools else b""
