"""What a training leaves while it runs, so that one that was killed goes on: checkpoints, each finished or not there.

work/<fingerprint>/checkpoint-<step>/   transformers' checkpoint, and `complete` once all of it is written
work/<fingerprint>/logs/                TensorBoard

The fingerprint names everything that decides what comes out, so a training with other data or settings starts over.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from cmat_graph.bases import hash_base
from cmat_graph.tuning.settings import TrainSettings

COMPLETE = "complete"
TRAINED = "trained.safetensors"
_IRRELEVANT = ("report_to", "save_steps")


def fingerprint(data: str, location: str, settings: TrainSettings, init: Path | None = None) -> str:
    """Hash what decides the outcome of a training.

    Args:
        data: The dataset's own hash.
        location: The base; its weights count, or its name if they are only on the hub.
        settings: How it is trained.
        init: The adapter it goes on from.

    """
    values = {name: value for name, value in asdict(settings).items() if name not in _IRRELEVANT}
    begun = hash_base.__wrapped__(str(init)) if init is not None else ""  # unremembered: a folder may be filled anew
    told = json.dumps([data, hash_base(location) or location, values, begun], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end; None when there is none."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Return the step after which a checkpoint was written; 0 for none."""
    number = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name) if checkpoint is not None else None
    return int(number[1]) if number else 0


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Marks checkpoints as complete, and keeps the weights that PEFT leaves out of them.

    PEFT saves of P-Tuning only what serves later, the vectors, and not the network that makes them in training. So the
    trained weights are kept beside, and put back when a training goes on.
    """

    def __init__(self, folder: Path, resumed: Path | None, *, keep_trained: bool) -> None:
        self._folder = folder
        self._resumed = resumed
        self._keep_trained = keep_trained

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Put back what PEFT left out; transformers has loaded the rest by now."""
        if self._resumed is None or not (self._resumed / TRAINED).is_file():
            return
        kept = load_file(self._resumed / TRAINED)
        with torch.no_grad():
            for name, weight in _trained(model):
                weight.copy_(kept[name])

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Mark the checkpoint that was just written."""
        if not state.is_world_process_zero:
            return
        folder = self._folder / f"checkpoint-{state.global_step}"
        if self._keep_trained:
            save_file({name: weight.detach().contiguous() for name, weight in _trained(model)}, folder / TRAINED)
        (folder / COMPLETE).write_text(f"{state.global_step}\n", encoding="utf-8")


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the sampler which epoch begins.

    transformers does, too, but where a training of several processes goes on in the middle of an epoch, the sampler is
    wrapped too deep for it, and would give the first epoch's rows.

    Args:
        steps: The sampler: rows in the order of the steps, as many in each.

    """

    def __init__(self, steps: Any) -> None:
        self._steps = steps

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Choose the order; the rows that were trained on are passed over after it."""
        self._steps.set_epoch(state.global_step * self._steps.batch_size // len(self._steps))


def _trained(model: Any) -> list[tuple[str, Any]]:
    inner = getattr(model, "module", model)  # DDP wraps it
    return [(name, weight) for name, weight in inner.named_parameters() if weight.requires_grad]
