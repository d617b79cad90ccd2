"""The arms of the training benchmark: this project's trainer, TRL's in two settings, and a bare loop.

All train the same weights on the same rows, which are encoded before any clock starts. As a script it runs one arm in
a process of its own and prints what that took: `python _tuning_arms.py ARM BASE ROWS STEPS BATCH`.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, get_cosine_schedule_with_warmup

ARMS = ("ours", "ours_unshared", "trl_default", "trl_tuned", "trl_same_order", "bare_loop")
RANK, RATE = 16, 1e-3


class Row(NamedTuple):
    """An encoded row."""

    ids: list[int]
    weights: list[float]


def make(arm: str, base: Path, rows: list[Any], *, steps: int, batch: int) -> Callable[[], list[float]]:
    """Return what trains once and gives the loss of each step; the model is made here, outside any clock."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, config)
    if arm == "bare_loop":
        return lambda: _bare(model, order(rows, steps, batch), batch)
    given: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(prefix="cmat-bench-"), "max_steps": steps, "learning_rate": RATE,
        "lr_scheduler_type": "cosine", "per_device_train_batch_size": batch, "use_cpu": True, "bf16": False,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "seed": 0,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    trainer = _ours(model, tokenizer, rows, given, arm) if arm.startswith("ours") else _trl(
        model, tokenizer, rows, given, arm)  # fmt: skip
    trainer.remove_callback(PrinterCallback)

    def train() -> list[float]:
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return train


def order(rows: list[Any], steps: int, batch: int) -> list[Any]:
    """Return the rows of the first steps as our trainer takes them, batch after batch."""
    from cmat_graph.tuning.train.batches import FILLER, ByLength

    sampler = ByLength([len(row.ids) for row in rows], batch, 0)
    taken: list[Any] = []
    for epoch in range(-(-steps * batch // len(sampler))):
        sampler.set_epoch(epoch)
        taken += [rows[at] for at in sampler if at != FILLER]
    return taken[: steps * batch]


def tokens(arm: str, rows: list[Any], *, steps: int, batch: int) -> float:
    """Return the tokens that an arm reads: those of its own order where it is known, else the mean of so many rows."""
    if arm.startswith("trl_") and arm != "trl_same_order":
        return steps * batch * sum(len(row.ids) for row in rows) / len(rows)
    return sum(len(row.ids) for row in order(rows, steps, batch))


def timed(train: Callable[[], list[float]]) -> dict[str, float]:
    """Run an arm, and return its seconds by the clock and by the processor."""
    gc.collect()
    start, cpu = time.perf_counter(), time.process_time()
    train()
    return {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def _ours(model: Any, tokenizer: Any, rows: list[Any], given: dict[str, Any], arm: str) -> Any:
    from cmat_graph.tuning.settings import TrainSettings
    from cmat_graph.tuning.train.batches import Rows
    from cmat_graph.tuning.train.sft import WeightedTrainer

    settings = TrainSettings(batch_size=given["per_device_train_batch_size"], seed=0)
    given = given | {"activation_checkpointing": False}
    trainer = WeightedTrainer(model, tokenizer, Rows(rows), Rows([]), settings, given)
    if arm == "ours_unshared":
        trainer.data_collator.shares = False
    return trainer


def _trl(model: Any, tokenizer: Any, rows: list[Any], given: dict[str, Any], arm: str) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if arm == "trl_tuned":
        given = given | {"activation_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    if arm == "trl_same_order":
        given = given | {"activation_checkpointing": False, "train_sampling_strategy": "sequential"}
        rows = order(rows, given["max_steps"], given["per_device_train_batch_size"])
    labels = [[token if weight else -100 for token, weight in zip(row.ids, row.weights, strict=True)] for row in rows]
    table = Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": labels})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SFTTrainer(
            model=model, args=SFTConfig(**given, max_length=None), train_dataset=table, processing_class=tokenizer
        )


def _bare(model: Any, rows: list[Any], batch: int) -> list[float]:
    """Train as a short script would: padded batches, the whole of the logits, AdamW, clipping, cosine."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, len(rows) // batch)
    model.train()
    losses = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        width = max(len(row.ids) for row in part)
        ids, mask = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width, dtype=torch.long)
        shares = torch.zeros(len(part), width)
        for at, row in enumerate(part):
            ids[at, : len(row.ids)] = torch.tensor(row.ids)
            shares[at, : len(row.ids)] = torch.tensor(row.weights)
            mask[at, : len(row.ids)] = 1
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        nll = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (nll * shares[:, 1:].flatten()).sum() / shares[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def peak_mb() -> float:
    """Return the most memory this program had; `getrusage` would count the one that started it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024


def main(arm: str, base: str, rows: str, steps: str, batch: str) -> None:
    """Run one arm in this process, and print what it took."""
    with open(rows, "rb") as file:
        found = [Row(*each) for each in pickle.load(file)]
    train = make(arm, Path(base), found, steps=int(steps), batch=int(batch))
    before = peak_mb()
    told = timed(train) | {
        "peak_mb": peak_mb(),
        "before_mb": before,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
