"""What of a training this machine cannot do, said before anything is harvested or loaded."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from cmat_graph.errors import ConfigurationError, MissingExtraError
from cmat_graph.tuning.settings import TrainSettings

TRACKERS = ("wandb", "mlflow")


def check_machine(settings: TrainSettings) -> None:
    """Refuse early what cannot work here.

    Raises:
        ConfigurationError: QLoRA or sharding without CUDA, or without the package that does it; a tracker that is not
            known or not installed.

    """
    for name in settings.report_to:
        if name not in TRACKERS:
            raise ConfigurationError(f"no tracker {name!r}; known besides TensorBoard: {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise ConfigurationError(f"reporting to {name} needs its package; fix: pip install {name}")
    if settings.method == "qlora" and not _has_cuda():
        raise ConfigurationError("qlora needs a CUDA GPU for its 4-bit base; take --method lora")
    if settings.method == "qlora" and find_spec("bitsandbytes") is None:
        raise ConfigurationError("qlora needs bitsandbytes; fix: pip install bitsandbytes")
    if settings.sharding and not _has_cuda():  # accelerate would leave it out without a word
        raise ConfigurationError(f"{settings.sharding} divides weights among CUDA GPUs; leave --sharding out on CPUs")
    if settings.sharding.startswith("zero") and find_spec("deepspeed") is None:
        raise ConfigurationError(f"{settings.sharding} needs DeepSpeed; fix: pip install deepspeed")


def _has_cuda() -> bool:
    try:
        return bool(import_module("torch").cuda.is_available())
    except ImportError as exc:
        raise MissingExtraError.of("local", exc) from exc
