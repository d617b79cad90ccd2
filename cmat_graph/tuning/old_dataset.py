"""Training examples on disk: JSONL in TRL's columns, with a manifest that says where they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmat_graph.types import Message

ROWS = "dataset.jsonl"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTExample:
    """One reply to learn, with what the node saw."""

    prompt: list[Message]
    """Everything the node saw, oldest first."""
    completion: str
    """What the node answered; the only text that carries loss."""
    task_id: str
    episode_id: str

    def to_row(self) -> dict[str, Any]:
        """Return the example in TRL's conversational prompt-completion columns."""
        return {
            "prompt": self.prompt,
            "completion": [{"role": "assistant", "content": self.completion}],
            "task_id": self.task_id,
            "episode_id": self.episode_id,
        }


def hash_examples(examples: Iterable[SFTExample]) -> str:
    """Hash what is trained on; where it came from does not count, nor does its order."""
    rows = sorted(json.dumps([e.prompt, e.completion], sort_keys=True, ensure_ascii=False) for e in examples)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def write_dataset(examples: Sequence[SFTExample], folder: Path, *, counts: dict[str, int]) -> str:
    """Write examples and manifest into a folder; return the content hash."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hash_examples(examples)
    with (folder / ROWS).open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(example.to_row(), ensure_ascii=False) + "\n")
    manifest = {
        "sha256": digest,
        "rows": len(examples),
        "tasks": len({e.task_id for e in examples}),
        "counts": counts,
        "format": "TRL conversational prompt-completion",
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return digest
