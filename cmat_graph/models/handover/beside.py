"""Work done beside a reply, which never waits for it: what the candidate would have said."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from langchain_core.messages import AIMessage, BaseMessage

logger = logging.getLogger(__name__)

ROOM = 64
"""How much may wait; what comes while it is full is skipped."""
WORKERS = 4


class Beside:
    """A few threads that nobody waits for."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(ROOM)
        self._lock = threading.Lock()
        self._started = False

    def submit(self, work: Callable[[], None]) -> bool:
        """Do some work soon; False when too much waits already."""
        with self._lock:
            if not self._started:
                self._started = True
                for _ in range(WORKERS):
                    threading.Thread(target=self._work, name="cmat-shadow", daemon=True).start()
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            return False
        return True

    def wait(self) -> None:
        """Wait until all that was submitted is done."""
        self._waiting.join()

    def _work(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                work()
            except Exception:
                logger.exception("work beside a reply failed")
            finally:
                self._waiting.task_done()


def agree(one: BaseMessage, other: BaseMessage) -> bool:
    """Tell whether two replies do the same: call the same tools, or say the same but for spaces."""
    calls = [
        [(call["name"], call["args"]) for call in reply.tool_calls] if isinstance(reply, AIMessage) else []
        for reply in (one, other)
    ]
    if calls[0] or calls[1]:
        return calls[0] == calls[1]
    return str(one.text).split() == str(other.text).split()
