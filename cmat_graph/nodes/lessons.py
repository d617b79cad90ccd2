"""How nodes deal with long-term memory: recall at the start, keep after a failure, credit when an attempt ends.

Memory is help, not a condition: when its store fails, the run goes on without lessons. That is counted, told to whoever
streams, and logged once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from langgraph.errors import GraphBubbleUp
from langgraph.store.base import BaseStore

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.ranking import Lesson, Policy, namespace
from cmat_graph.memory.reflections import credit, credit_recall, recall, remember
from cmat_graph.nodes.seat import Call, Do, Turn
from cmat_graph.state import Loop
from cmat_graph.traces.redact import Redactor
from cmat_graph.types import Reflection

logger = logging.getLogger(__name__)

REDACTOR = Redactor()
NODE = "assistant"
"""For whom lessons are."""
_CODE = re.compile(r"```\w*\s*(.*?)```", re.DOTALL)

Remembering = Generator[Call | Do, Any, Loop]
"""A dealing with memory; what it returns goes into the state."""


class Memory:
    """Long-term memory of one graph.

    Args:
        store: Where lessons lie; without one, in the store that the graph was compiled with, if any.
        policy: What is recalled and what is forgotten.

    """

    def __init__(self, store: BaseStore | None = None, policy: Policy | None = None) -> None:
        self._store, self._policy = store, policy or Policy()
        self._warned = False

    def store(self, turn: Turn) -> BaseStore | None:
        """Return where lessons are read, if anywhere."""
        return self._store if self._store is not None else turn.runtime.store

    def learns(self, turn: Turn) -> bool:
        """Tell whether anything may be written or credited: there is a store, and it is not frozen."""
        return not turn.context.freeze_memory and self.store(turn) is not None

    def recall(self, turn: Turn, task: str) -> Remembering:
        """Find what is known about tasks like this one."""
        store, context = self.store(turn), turn.context
        if store is None or not task:
            return {"lessons": []}
        turn.loop = {**turn.loop, "memory_failures": 0}
        found: list[Lesson] = yield from self._try(
            turn,
            partial(
                recall,
                store,
                env=context.env,
                node=NODE,
                task=task,
                split=context.split,
                frozen=context.freeze_memory,
                policy=self._policy,
            ),
            otherwise=[],
        )
        return {
            "lessons": [lesson.wording for lesson in found],
            "recalled": [lesson.place for lesson in found],
            "known": [lesson.text for lesson in found],
            "learned": [],
            "last_reward": None,
            "memory_failures": turn.loop["memory_failures"],
        }

    def keep(self, turn: Turn, reflection: Reflection) -> Remembering:
        """Write a lesson, unless it is none, is known already, or memory is frozen."""
        store, loop = self.store(turn), turn.loop
        if store is None or turn.context.freeze_memory:
            return {}
        known = loop.get("known", [])
        key: str = yield from self._try(
            turn, partial(remember, store, reflection, known=known, policy=self._policy), otherwise=""
        )
        learned = loop.get("learned", [])
        place = [key, *namespace(reflection.env, reflection.node, reflection.split)]
        if key and place not in learned:
            learned = [*learned, place]
        return {"learned": learned, "memory_failures": _failures(turn)}

    def settle(self, turn: Turn, reward: float, *, passed: bool) -> Remembering:
        """Credit lessons with how an attempt ended: F8 for those learned since the one before.

        Those that the episode began with are credited with its first attempt. A lesson that was learned in the middle
        of the first attempt has no reward before it: it is told what then worked, and credited with the second.
        """
        store, context, loop = self.store(turn), turn.context, turn.loop
        if store is None or context.freeze_memory:
            return {}
        before, learned = loop.get("last_reward"), loop.get("learned", [])
        fix = _what_worked(loop) if learned and passed and (before is None or reward > before) else ""
        gain = None if before is None else reward - before

        def work() -> None:
            if loop["attempt"] == 1:
                credit_recall(
                    store,
                    loop.get("recalled", []),
                    reward,
                    env=context.env,
                    node=NODE,
                    split=context.split,
                    policy=self._policy,
                )
            if learned and (gain is not None or fix):
                credit(store, learned, gain, fix=fix)

        yield from self._try(turn, work)
        carried = learned if before is None and not passed else []
        return {"last_reward": reward, "learned": carried, "memory_failures": _failures(turn)}

    def _try(self, turn: Turn, function: Callable[[], Any], otherwise: Any = None) -> Generator[Call | Do, Any, Any]:
        try:
            return (yield Do(function))
        except (GraphBubbleUp, ConfigurationError):
            raise
        except Exception as exc:  # each store has its own ways to be down
            told = f"{type(exc).__name__}: {exc}"
            if not self._warned:
                self._warned = True
                logger.warning("long-term memory failed, the run goes on without lessons: %s", told)
            turn.loop = {**turn.loop, "memory_failures": _failures(turn) + 1}
            turn.emit("memory_failed", error=told, failures=_failures(turn))
            return otherwise


def _failures(turn: Turn) -> int:
    return turn.loop.get("memory_failures", 0)


def _what_worked(loop: Loop) -> str:
    """Return the last action before the answer, or the answer where there was none: its code, if it has any."""
    done = loop.get("done_so_far", [])
    if done and done[-1][2] == "session":  # the answer is the last action there
        done = done[:-1]
    worked = done[-1][0] if done else loop.get("answer", "")
    code = _CODE.findall(worked)
    return REDACTOR.text((code[-1] if code else worked).strip())
