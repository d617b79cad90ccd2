"""What stops a training before it does harm, and what follows it: the curve, the progress, TensorBoard."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from cmat_graph.errors import CmatError, TrainingError
from cmat_graph.tuning.train.checkpoints import last_checkpoint, step_of

Progress = Callable[[int, int, float], None]
"""Called with step, number of steps, and the step's loss."""
_FULL = ("No space left", "File too large", "PytorchStreamWriter failed", "inline_container", "unexpected pos")
"""How a full disk, or a quota, reads in what torch and safetensors raise."""


class Guard(TrainerCallback):  # type: ignore[misc]
    """Stops a training whose loss or gradient is no number, before a checkpoint is made of it; tells how far it is.

    The loss is logged at every step, and transformers logs before it saves: so a checkpoint never holds such weights.
    """

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self._folder = folder
        self._progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Look at what was logged, and report the step that has a loss."""
        for name in ("loss", "grad_norm", "eval_loss"):
            value = (logs or {}).get(name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise TrainingError(
                    f"the {name.replace('_', ' ')} became {value} at step {state.global_step}; {self._kept()}; "
                    f"lower the learning rate (it was {args.learning_rate:g}) or look at the data"
                )
        if self._progress is not None and state.is_world_process_zero and "loss" in (logs or {}):
            self._progress(state.global_step, state.max_steps, float((logs or {})["loss"]))

    def _kept(self) -> str:
        kept = last_checkpoint(self._folder)
        return f"the last good checkpoint, of step {step_of(kept)}, is kept in {kept}" if kept else "no checkpoint yet"


class Curves(TrainerCallback):  # type: ignore[misc]
    """Writes every number that is logged for TensorBoard: and nothing else, such as paths or a machine's name.

    transformers' own callback puts all arguments in, with folders, and the file's name tells the host.
    """

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        self._folder = folder
        self._from_step = from_step
        self._writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the file; what an interrupted training wrote beyond its last checkpoint is hidden."""
        if state.is_world_process_zero:
            self._writer = SummaryWriter(str(self._folder), purge_step=self._from_step + 1)  # type: ignore[no-untyped-call]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write the numbers."""
        if self._writer is None:
            return
        for name, value in (logs or {}).items():
            if isinstance(value, int | float):
                tag = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
                self._writer.add_scalar(tag, value, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the file and take the host out of its name."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        found = sorted(self._folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns)
        for number, file in enumerate(found):
            file.rename(self._folder / f"events.out.tfevents.{number:04d}")


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn what a full disk makes torch and safetensors raise into an `OSError` that names the fix.

    Args:
        what: What is being written.
        folder: Where to.

    Raises:
        OSError: The disk is full.

    """
    try:
        yield
    except CmatError:
        raise
    except (SafetensorError, RuntimeError, OSError) as exc:
        number = exc.errno if isinstance(exc, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(sign in str(exc) for sign in _FULL):
            raise OSError(
                errno.ENOSPC, f"no room for {what} in {folder}; free some disk space and start again: it goes on"
            ) from exc
        raise
