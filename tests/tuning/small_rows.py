"""Small datasets in a folder, as the harvest writes them, for tests that train."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from cmat_graph.tuning.dataset import Dataset, Example, Judged, Origin, Pair, Row, hash_row, to_row


def make_dataset(
    folder: Path, *, train: int = 16, validation: int = 0, seed: int = 0, bad: bool = True, good: bool = True
) -> Dataset:
    """Write sums to add, with the answer as the better reply and a pointless statement as the worse one."""
    folder.mkdir(parents=True)
    dice = random.Random(seed)
    counts: dict[str, int] = {}
    hashes = []
    for part, size in (("train", train), ("validation", validation)):
        rows: dict[str, list[Row]] = {"sft": [], "pairs": [], "judged": []}
        for number in range(size):
            a, b = dice.randint(1, 50), dice.randint(1, 50)
            origin = Origin(task_id=f"{part}-{number}")
            prompt = [{"role": "user", "content": f"add {a} and {b}"}]
            right = {"role": "assistant", "content": f"Final answer: {a + b}"}
            wrong = {"role": "assistant", "content": f"SELECT {a};"}
            rows["sft"].append(Example(messages=[*prompt, {**right, "weight": 1.0}], origin=origin))
            rows["pairs"].append(Pair(prompt=prompt, chosen=right, rejected=wrong, contrast="failed", origin=origin))
            if good:
                rows["judged"].append(Judged(prompt=prompt, completion=right, good=True, origin=origin))
            if bad and number % 2:
                rows["judged"].append(Judged(prompt=prompt, completion=wrong, good=False, origin=origin))
        for name, found in rows.items():
            counts[f"{name}.{part}"] = len(found)
            hashes += [hash_row(row) for row in found]
            lines = [json.dumps(to_row(row)) + "\n" for row in found]
            (folder / f"{name}.{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    manifest = {"sha256": hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest(), "rows": counts}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return Dataset(folder)
