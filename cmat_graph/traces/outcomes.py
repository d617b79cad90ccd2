"""Tell whoever wants to know how an episode ended: models on trial, that is, wherever in a graph they sit.

Nodes tell, listeners hear; neither knows the other. A listener is forgotten when nothing else holds it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Wants to know how episodes end."""

    def wants(self, episode: str) -> bool:
        """Tell whether it had a part in an episode; an environment is then asked for the reward."""

    def episode_ended(self, episode: str, success: bool) -> None:
        """Hear how one ended; it may be one that the listener had no part in."""


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
_lock = threading.Lock()


def listen(listener: Listener) -> None:
    """Have a listener told of every episode that ends in this process from now on."""
    with _lock:
        _listeners.add(listener)


def anyone_listens() -> bool:
    """Tell whether there is a listener, of whatever episode: it may be one whose owner is long done with it."""
    return bool(_listeners)


def anyone_wants(episode: str) -> bool:
    """Tell whether somebody had a part in an episode; it may read files. What a listener raises is logged."""
    return any(_heard(episode, listener.wants, episode) for listener in _all())


def tell(episode: str, success: bool) -> None:
    """Tell all listeners how an episode ended; what they raise is logged, and ends nothing."""
    for listener in _all():
        _heard(episode, listener.episode_ended, episode, success)


def _all() -> list[Listener]:
    with _lock:
        return list(_listeners)


def _heard(episode: str, listener: Callable[..., Any], *args: Any) -> Any:
    try:
        return listener(*args)
    except Exception:
        logger.exception("a listener could not take the outcome of episode %s", episode)
