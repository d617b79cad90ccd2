"""Rows wait on disk while debates are read; memory keeps where they lie. Then they become dataset folders."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from cmat_graph.splits import assert_disjoint
from cmat_graph.tuning.dataset import Contrast, Kind, Origin, Part, WeightedMessage, hash_task
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.transcript import Reply, Transcript
from cmat_graph.tuning.harvest.collect import Tasks
from cmat_graph.tuning.harvest.manifest import Files
from cmat_graph.tuning.harvest.spool import Place, Spool
from cmat_graph.tuning.harvest.tally import Tally

PARTS: tuple[Part, ...] = ("train", "validation")


class Waiting(NamedTuple):
    """What is remembered of a row. Sorted, rows stand in the same order however their debates were recorded."""

    task_name: str
    digest: bytes
    place: Place
    task: int


class Piles:
    """Rows by seat and by rule.

    Args:
        spool: Where the rows lie.
        settings: What a row weighs.

    """

    def __init__(self, spool: Spool, settings: DebateSetSettings) -> None:
        self._spool, self._settings = spool, settings
        self._tasks = Tasks()
        self._piles: dict[tuple[str, str], list[Waiting]] = defaultdict(list)

    def learn(
        self,
        node: str,
        pile: str,
        debate: Transcript,
        prompt: Sequence[WeightedMessage],
        reply: WeightedMessage,
        *,
        kind: Kind = "turn",
    ) -> None:
        """Keep a conversation that ends with a reply to be learned."""
        weight = round(debate.agreement, 6) if self._settings.weigh_by_agreement else 1.0
        all_turns = self._settings.loss == "all_turns"
        messages = [
            WeightedMessage({**message, "weight": weight})  # type: ignore[typeddict-item]
            if all_turns and message["role"] == "assistant"
            else message
            for message in prompt
        ]
        messages.append({**reply, "weight": weight})
        self._put(node, pile, debate, {"messages": messages, "tools": [], "kind": kind})

    def prefer(
        self, node: str, debate: Transcript, prompt: Sequence[WeightedMessage], chosen: Reply, rejected: Reply,
        contrast: Contrast,
    ) -> None:  # fmt: skip
        """Keep a better and a worse reply to one prompt."""
        row = {"prompt": list(prompt), "chosen": chosen.message, "rejected": rejected.message, "tools": []}
        self._put(node, "pairs", debate, {**row, "contrast": contrast})

    def judge(self, node: str, debate: Transcript, reply: Reply, *, good: bool) -> None:
        """Keep a reply by itself."""
        row = {"prompt": reply.prompt, "completion": reply.message, "good": good, "tools": []}
        self._put(node, "judged", debate, row)

    def _put(self, node: str, pile: str, debate: Transcript, row: dict[str, Any]) -> None:
        episode = debate.episode
        text = episode.task.prompt
        task = self._tasks.number(episode.task.id, text)
        name = hash_task(text) if text.strip() else ""
        origin = Origin(task_id=episode.task.id, task_hash=name, episodes=(episode.id,), env=episode.env, node=node)
        taught = json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")
        digest = hashlib.blake2b(taught, digest_size=12).digest()
        place = self._spool.put({**row, "origin": asdict(origin)})
        self._piles[node, pile].append(Waiting(self._tasks.hashes[task], digest, place, task))

    def of(self, node: str, pile: str, part: Part, share: float) -> list[Waiting]:
        """Return the rows of one pile whose tasks are trained on, or are kept to choose by."""
        found = self._piles.get((node, pile), [])
        return sorted(row for row in found if self._tasks.is_validation(row.task, share) == (part == "validation"))

    def nodes(self) -> set[str]:
        """Return the seats that have rows."""
        return {node for node, _ in self._piles}

    def read(self, rows: Iterable[Waiting]) -> Iterable[dict[str, Any]]:
        """Read rows back."""
        for row in rows:
            yield dict(self._spool.get(row.place))


def write_set(
    folder: Path,
    piles: Piles,
    rows: Mapping[tuple[str, Part], Sequence[Waiting]],
    settings: Mapping[str, Any],
    tally: Tally,
    node: str,
) -> None:
    """Write a dataset folder.

    Args:
        folder: Where it goes; it is there and empty.
        piles: Where the rows lie.
        rows: What goes into which file (`sft`, `pairs` or `judged`) and part.
        settings: The rules, for the manifest.
        tally: What was left out, for the manifest.
        node: The seat it is for.

    """
    files = Files(folder)
    for (name, part), chosen in rows.items():
        files.write(name, part, piles.read(chosen))
        if part == "train" and name == "sft":
            tally.gave("mix", "examples", len(chosen))
    assert_disjoint(files.tasks["train"], files.tasks["validation"])
    files.finish(settings, tally, node=node)
