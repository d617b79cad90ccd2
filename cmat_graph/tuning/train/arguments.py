"""The settings of a training in transformers' words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train.loading import compute_dtype
from cmat_graph.tuning.train.processes import share, world_size

CONFIGS = Path(__file__).parent / "configs"
MULTIPLE = 32
"""Rows are filled up to a multiple of it: oneDNN keeps a program for every shape, and its caches grow with each."""


def to_arguments(settings: TrainSettings, location: str, folder: Path, *, validates: bool) -> dict[str, Any]:
    """Return keywords that `SFTConfig`, `DPOConfig` and `KTOConfig` all take.

    Args:
        settings: How to train.
        location: The base.
        folder: Where checkpoints go.
        validates: Whether there are rows to validate on, once an epoch.

    Raises:
        ConfigurationError: The batch cannot be shared by the processes.

    """
    on_gpu = torch.cuda.is_available()
    rows, times = share(settings.batch_size, settings.micro_batch)
    return {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "gradient_accumulation_steps": times,
        "learning_rate": settings.rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,  # below one it is a share of all steps
        "activation_checkpointing": False,
        "use_cpu": not on_gpu,
        "bf16": compute_dtype(settings, location) == torch.bfloat16,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide what `Guard` looks for
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "save_total_limit": 2,
        "eval_strategy": "epoch" if validates else "no",
        "report_to": list(settings.report_to) or "none",
        "run_name": folder.name,
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "seed": settings.seed,
        "ddp_find_unused_parameters": False,
        "ddp_backend": "gloo" if world_size() > 1 and not on_gpu else None,
        **_sharding(settings),
    }


def _sharding(settings: TrainSettings) -> dict[str, Any]:
    """Return what divides a model's weights among processes: FSDP, or DeepSpeed's ZeRO."""
    if not settings.sharding or world_size() == 1:
        return {}
    file = str(CONFIGS / f"{settings.sharding}.json")
    return {"fsdp": True, "fsdp_config": file} if settings.sharding == "fsdp" else {"deepspeed": file}
