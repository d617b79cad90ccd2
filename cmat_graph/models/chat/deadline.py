"""Give a request up when its time is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Protocol

from cmat_graph.models.decoding.rows import Pending


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Let it not happen."""


def in_thread(seconds: float, act: Callable[[], None]) -> Timer:
    """Do something later, in a thread of its own."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer


def on_loop(seconds: float, act: Callable[[], None]) -> Timer:
    """Do something later, on the running event loop."""
    return asyncio.get_running_loop().call_later(seconds, act)


@contextmanager
def deadline(
    pending: Pending, seconds: float | None, later: Callable[[float, Callable[[], None]], Timer]
) -> Iterator[None]:
    """Cancel a request after some seconds, unless the block has ended before.

    Raises:
        TimeoutError: The time was over.

    """
    over = threading.Event()

    def give_up() -> None:
        over.set()
        pending.cancel()

    timer = later(seconds, give_up) if seconds is not None else None
    try:
        yield
    except (CancelledError, asyncio.CancelledError):
        if over.is_set():
            raise TimeoutError(f"no reply within {seconds:g} s; raise timeout or lower max_tokens") from None
        raise
    except BaseException:  # an interrupt, say: nobody waits for the reply any more
        pending.cancel()
        raise
    finally:
        if timer is not None:
            timer.cancel()
