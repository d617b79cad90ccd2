"""Write the chosen rows and what is to be known about them: the dataset's files and its manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cmat_graph
from cmat_graph.tuning.dataset import MANIFEST, hash_files
from cmat_graph.tuning.harvest.collect import trimmed
from cmat_graph.tuning.harvest.spool import Candidate, Spool
from cmat_graph.tuning.harvest.tally import Tally

EPISODES = "episodes.txt"
_ABOUT = ("origin", "kind", "contrast")
"""What does not count as taught."""


class Files:
    """The files of a dataset while they are written.

    Args:
        folder: Where they go.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rows: Counter[str] = Counter()
        self.tasks: dict[str, set[str]] = defaultdict(set)
        """Hashes or ids of the tasks of each part."""
        self.weights: dict[str, dict[str, float]] = {"kind": defaultdict(float), "env": defaultdict(float)}
        self._hashes: list[bytes] = []
        self._episodes: dict[str, None] = {}

    def write(self, name: str, part: str, rows: Iterable[dict[str, Any]]) -> None:
        """Write a file of rows; one without any is not made."""
        file = None
        try:
            for row in rows:
                if file is None:
                    file = (self._folder / f"{name}.{part}.jsonl").open("w", encoding="utf-8", errors="replace")
                about = {key: row.pop(key) for key in _ABOUT if key in row}
                taught = json.dumps(row, ensure_ascii=False)
                file.write(f"{taught[:-1]}, {json.dumps(about, ensure_ascii=False)[1:]}\n")
                self._count(name, part, about, row.get("messages", ()))
                if part == "train":
                    self._hashes.append(hashlib.sha256(taught.encode("utf-8", "replace")).digest())
        finally:
            if file is not None:
                file.close()

    def _count(self, name: str, part: str, about: dict[str, Any], messages: Sequence[Any]) -> None:
        origin = about["origin"]
        self.rows[f"{name}.{part}"] += 1
        self.tasks[part].add(origin["task_hash"] or origin["task_id"])
        self._episodes.update(dict.fromkeys(origin["episodes"]))
        if part == "train" and name == "sft":
            weight = sum(message.get("weight", 0.0) for message in messages)
            self.weights["kind"][about["kind"]] += weight
            self.weights["env"][origin["env"]] += weight

    def finish(self, settings: Mapping[str, Any], tally: Tally, **more: Any) -> None:
        """Write the manifest, with what more it shall tell, and the list of episodes."""
        episodes = "".join(f"{episode}\n" for episode in self._episodes)
        (self._folder / EPISODES).write_text(episodes, encoding="utf-8")
        manifest = {
            "sha256": hashlib.sha256(b"".join(sorted(self._hashes))).hexdigest(),
            "files": hash_files(self._folder),
            "rows": dict(sorted(self.rows.items())),
            "tasks": {part: len(tasks) for part, tasks in sorted(self.tasks.items())},
            "episodes": {"count": len(self._episodes), "sha256": hashlib.sha256(episodes.encode()).hexdigest()},
            "weights": {
                by: {name: round(weight, 3) for name, weight in sorted(sums.items())}
                for by, sums in self.weights.items()
            },
            "stages": tally.stages(),
            "counts": tally.flat(),
            "settings": dict(settings),
            "made_by": f"cmat-graph {cmat_graph.__version__}",
            **more,
        }
        (self._folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def example_rows(chosen: Sequence[Candidate], spool: Spool) -> Iterable[dict[str, Any]]:
    """Read the chosen conversations, each up to its last target, with its final weights."""
    for candidate in chosen:
        row = spool.get(candidate.place)
        messages = list(trimmed(row["messages"]))
        if candidate.scale != 1.0:
            messages = [
                message | {"weight": round(message["weight"] * candidate.scale, 6)}
                if message.get("weight")
                else message
                for message in messages
            ]
        yield {"messages": messages, "tools": row["tools"], "kind": row["kind"], "origin": row["origin"]}
