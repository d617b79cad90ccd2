"""Make a harvest fit to train on: no example twice, no task that drowns the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from cmat_graph.tuning.old_dataset import SFTExample


def curate(examples: Iterable[SFTExample], counts: Counter[str], *, max_per_task: int = 8) -> list[SFTExample]:
    """Keep the first of equal examples, and at most `max_per_task` of one task; count what was left out."""
    seen: set[str] = set()
    per_task: Counter[str] = Counter()
    kept = []
    for example in examples:
        key = json.dumps([example.prompt, example.completion], sort_keys=True)
        if key in seen:
            counts["examples left out: repeated"] += 1
        elif per_task[example.task_id] >= max_per_task:
            counts["examples left out: task has enough"] += 1
        else:
            seen.add(key)
            per_task[example.task_id] += 1
            kept.append(example)
    counts["examples"] = len(kept)
    return kept
