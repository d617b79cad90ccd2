"""Put what was trained into a folder that can travel: an adapter in PEFT's form, or a whole model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cmat_graph.adapters import CONFIG
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train.guards import disk_errors
from cmat_graph.tuning.train.processes import is_first

LOGS = "logs"


def save(trainer: Any, tokenizer: Any, target: Path, settings: TrainSettings, logs: Path) -> None:
    """Save an adapter, or for `full` the model with its tokenizer, and TensorBoard's files in `logs/`.

    All processes call it, since they hold the weights together where these are sharded; the first one writes.

    Args:
        trainer: transformers' trainer, after training.
        tokenizer: The base's own.
        target: The folder.
        settings: How it was trained.
        logs: Where TensorBoard's files are now.

    Raises:
        OSError: The disk is full; what is in the folder is not to be used.

    """
    with disk_errors("the trained weights", target):
        state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
        if not is_first():
            return
        target.mkdir(parents=True, exist_ok=True)
        inner = trainer.accelerator.unwrap_model(trainer.model)
        if settings.method == "full":
            inner.config.use_cache = True
            inner.save_pretrained(str(target), state_dict=state)
            tokenizer.save_pretrained(str(target))
        else:
            inner.save_pretrained(str(target), state_dict=state, selected_adapters=["default"])
            _forget_paths(target)
        if logs.is_dir():
            shutil.copytree(logs, target / LOGS, dirs_exist_ok=True)


def _forget_paths(folder: Path) -> None:
    """Take this machine's paths out of what PEFT wrote: an adapter folder must travel. The card names the base."""
    file = folder / CONFIG
    config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": None}
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)
