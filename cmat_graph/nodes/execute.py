"""Execute: the only place where an action reaches the environment or a tool."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from langgraph.errors import GraphInterrupt
from langgraph.store.base import BaseStore

from cmat_graph.nodes.attempt import bring_to, name_of, of_environment, so_far
from cmat_graph.nodes.seat import Call, Do, Flow, Node, Turn
from cmat_graph.nodes.tools import RESULT_CHARS, Toolbox
from cmat_graph.state import Loop
from cmat_graph.types import Message, Observation

IN_DOUBT = (
    "It is not known whether this ran: the process was stopped while it did. It was not run again. "
    "Look before you repeat it."
)


def make_execute(toolbox: Toolbox | None, store: BaseStore | None) -> Node:
    """Build the node that carries out the approved action.

    Args:
        toolbox: Where tool calls go.
        store: Remembers, where nothing is recorded, which tool calls were begun.

    """

    def execute(turn: Turn) -> Flow:
        loop, draft = turn.loop, turn.loop["draft"]
        assert draft is not None
        start = time.perf_counter()
        kind = "tools" if toolbox is not None and draft.get("tool_calls") else "session"
        if kind == "tools":
            assert toolbox is not None
            marks = _Marks(turn, store)
            place = (yield Do(_open_place, marks)) if marks.lasting else marks.place
            if place is not None:
                try:
                    seen, turns = yield from toolbox.run(turn, draft)
                except GraphInterrupt:  # a tool asks a person, and runs again with the answer
                    if marks.lasting:
                        yield Do(marks.set, f"{place} asks")
                    raise
            else:
                seen, turns = toolbox.refuse(draft.get("tool_calls", []), IN_DOUBT)
                seen = replace(seen, error=False)  # or the attempt would fail for it, and the next one repeat it
        else:
            seen = yield from _step(turn, draft["content"])
            turns = [Message(role="user", content=seen.text)]
            if seen.error:
                turns[0]["error"] = True
        if turn.recorder is not None:
            turn.recorder.observation(loop["step"], seen.text, error=seen.error)
        action = name_of(draft) if kind == "tools" else draft["content"]
        turn.emit("action", action=action, observation=seen.text, error=seen.error)
        change: Loop = {
            "draft": None,
            "doubted": "",
            "revisions": 0,
            "round": loop["round"] + 1,
            "done_so_far": [*loop["done_so_far"], [action, seen.text, kind]],
            "observation": seen.text,
            "done": seen.done,
            "flaw": seen.text if seen.error else loop["flaw"] if seen.done or loop["forced"] else "",
            "spent": {**turn.spent, "seconds": turn.spent["seconds"] + time.perf_counter() - start},
        }
        if seen.done:
            change["answer"] = draft["content"].rsplit("Final Answer:", 1)[-1].strip()
        else:
            change["trajectory"] = [*loop["trajectory"], *turns]
        return {"cmat": change}

    return execute


def _step(turn: Turn, action: str) -> Generator[Call | Do, Any, Observation]:
    session = turn.context.session
    if session is None:  # a forked run that was sent here: there is nothing to act on
        return Observation(text="", done=True)
    yield from bring_to(turn, so_far(turn.loop))
    seen: Observation = yield Do(of_environment, session.step, action)
    turn.context.played.append(action)
    if len(seen.text) > RESULT_CHARS:
        cut = f"{seen.text[:RESULT_CHARS]}\n[{len(seen.text) - RESULT_CHARS} more characters were cut]"
        seen = replace(seen, text=cut)
    return seen


class _Marks:
    """Marks that outlive the process: which tool calls were begun, and which of them ask a person.

    In the traces where the run is recorded, else in the store. Only runs with checkpoints can come back to a mark.
    """

    def __init__(self, turn: Turn, store: BaseStore | None) -> None:
        info = turn.runtime.execution_info
        self._recorder = turn.recorder
        self._memory = store or turn.runtime.store
        self._namespace = ("cmat", "actions", turn.loop["episode"])
        self.lasting = info is not None and info.thread_id is not None and bool(self._recorder or self._memory)
        # LangGraph's task is the same one after a kill, and another one for whoever goes back in time on purpose.
        task = info.task_id[:8] if info is not None else ""
        self.place = f"{turn.loop['attempt']}.{turn.loop['round']}.{task}"

    def set(self, mark: str) -> bool:
        """Write a mark and wait until it is written; False when it was there."""
        if self._recorder is not None:
            return self._recorder.begin_action(mark)
        assert self._memory is not None
        if self.has(mark):
            return False
        self._memory.put(self._namespace, mark, {"begun": True}, index=False)
        return True

    def has(self, mark: str) -> bool:
        """Tell whether a mark is there."""
        if self._recorder is not None:
            return self._recorder.has_begun(mark)
        return self._memory is not None and self._memory.get(self._namespace, mark) is not None


def _open_place(marks: _Marks) -> str | None:
    """Write down that this round's calls begin, before they do; None when they had begun in a run that was killed."""
    for answers in range(100):  # of people whom the tools asked: they run again with each answer
        place = f"{marks.place}.{answers}"
        if marks.set(place):
            return place
        if not marks.has(f"{place} asks"):
            break
    return None
