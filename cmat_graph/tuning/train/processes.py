"""More than one training process: the same program, started by torchrun. Every process computes, the first one writes.

The launcher tells each process its place by environment variables (torch.distributed.run); without them there is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from cmat_graph.errors import ConfigurationError

T = TypeVar("T")


def rank() -> int:
    """Return this process's number among all, 0 for the first or only one."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number on its machine, which is its GPU's, too."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Tell whether this process is the one that writes, prints and registers."""
    return rank() == 0


def join() -> None:
    """Meet the other processes: NCCL between GPUs, gloo between CPUs. Nothing happens in a lone one."""
    if world_size() > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank())
        dist.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo")


def wait() -> None:
    """Go on when all processes are here."""
    if world_size() > 1:
        join()
        dist.barrier()


def first(do: Callable[[], T]) -> T:
    """Let the first process do something while the others wait, and give all of them what came of it.

    Args:
        do: What to do; its result, or what it raises, must be picklable.

    Raises:
        Exception: What `do` raised, in every process.

    """
    if world_size() == 1:
        return do()
    join()
    told: list[Any] = [None, None]
    failed: Exception | None = None
    if is_first():
        try:
            told[0] = do()
        except Exception as exc:  # the others must not wait for ever
            failed, told[1] = exc, exc
    try:
        dist.broadcast_object_list(told, src=0)
    finally:
        if failed is not None:
            raise failed
    if told[1] is not None:
        raise told[1]
    return told[0]  # type: ignore[no-any-return]


def share(batch_size: int, micro_batch: int) -> tuple[int, int]:
    """Divide a step's rows among the processes.

    Args:
        batch_size: Rows for one step, over all processes.
        micro_batch: Rows at a time on one device; 0 takes all that one process has.

    Returns:
        Rows at a time on one device, and how often before the step.

    Raises:
        ConfigurationError: They cannot be divided evenly, so that a step would not be what was asked for.

    """
    own, left = divmod(batch_size, world_size())
    if left or not own:
        raise ConfigurationError(
            f"a batch of {batch_size} rows cannot be shared by {world_size()} processes; take a multiple of them"
        )
    if micro_batch and own % micro_batch:
        raise ConfigurationError(
            f"{own} rows of one process cannot be taken {micro_batch} at a time; take a divisor of {own}"
        )
    return (micro_batch, own // micro_batch) if micro_batch else (own, 1)
