"""How a node runs: written once as a generator that asks for what may wait, played sync or async.

A node is a function of one `Turn`. Where it would block (a model, a tool, the environment, memory) it yields a `Call`
or a `Do` and gets the result back; so `invoke` and `ainvoke` take the same way through the same lines.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Generator
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.runtime import Runtime, get_runtime

from cmat_graph.state import NO_CONTEXT, CmatState, Loop, RunContext
from cmat_graph.traces.handler import find_recorder
from cmat_graph.traces.recorder import Recorder
from cmat_graph.types import Spent


class Call:
    """A request to run a LangChain runnable: a model, an agent, a tool node.

    Args:
        runnable: What to run.
        given: Its input.
        config: Its config; callbacks and metadata pass through it.
        seconds: Give up waiting after this long with `TimeoutError`; None waits.

    """

    __slots__ = ("config", "given", "runnable", "seconds")

    def __init__(
        self, runnable: Runnable[Any, Any], given: Any, config: RunnableConfig | None, seconds: float | None = None
    ) -> None:
        self.runnable, self.given, self.config, self.seconds = runnable, given, config, seconds

    def now(self) -> Any:
        """Run in this thread, or beside it where there is a time limit."""
        if self.seconds is None:
            return self.runnable.invoke(self.given, self.config)
        return _within(self.seconds, self.runnable.invoke, self.given, self.config)

    async def later(self) -> Any:
        """Run on the event loop."""
        async with asyncio.timeout(self.seconds):
            return await self.runnable.ainvoke(self.given, self.config)


class Do:
    """A request to call a function that may block."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def now(self) -> Any:
        """Call it here."""
        return self.function(*self.args)

    async def later(self) -> Any:
        """Call it in a thread, off the event loop."""
        return await asyncio.to_thread(self.function, *self.args)


Flow = Generator[Call | Do, Any, CmatState]


class Turn:
    """What a node sees in one run of it."""

    __slots__ = ("asking", "config", "context", "loop", "messages", "recorder", "runtime", "spent", "steps_left")

    def __init__(self, state: CmatState, config: RunnableConfig, runtime: Runtime[RunContext]) -> None:
        self.messages = state.get("messages", [])
        self.loop: Loop = state.get("cmat") or {}
        self.steps_left: int = state.get("remaining_steps", 10_000)
        self.config = config
        self.asking: RunnableConfig | None = None
        """Config of the node's model calls; None: they find LangGraph's own."""
        self.runtime = runtime
        self.context: RunContext = runtime.context or NO_CONTEXT
        self.recorder: Recorder | None = find_recorder(config)
        self.spent: Spent = self.loop.get("spent") or {"calls": 0, "tokens": 0, "seconds": 0.0, "cost": 0.0}

    def emit(self, kind: str, **event: Any) -> None:
        """Send an event to whoever streams with `stream_mode="custom"`."""
        self.runtime.stream_writer({"type": kind, "attempt": self.loop.get("attempt", 1), **event})


Node = Callable[[Turn], Flow]


class Seat(Runnable[CmatState, CmatState]):
    """A node as LangGraph runs it."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def invoke(self, input: CmatState, config: RunnableConfig | None = None, **kwargs: Any) -> CmatState:
        """Play the node's flow in this thread."""
        flow = self._node(Turn(input, config or {}, get_runtime(RunContext)))
        try:
            request = next(flow)
            while True:
                try:
                    result = request.now()
                except BaseException as exc:
                    request = flow.throw(exc)
                else:
                    request = flow.send(result)
        except StopIteration as stop:
            update: CmatState = stop.value
            return update

    async def ainvoke(self, input: CmatState, config: RunnableConfig | None = None, **kwargs: Any) -> CmatState:
        """Play the node's flow on the event loop."""
        flow = self._node(Turn(input, config or {}, get_runtime(RunContext)))
        try:
            request = next(flow)
            while True:
                try:
                    result = await request.later()
                except BaseException as exc:
                    request = flow.throw(exc)
                else:
                    request = flow.send(result)
        except StopIteration as stop:
            update: CmatState = stop.value
            return update


def _within(seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread that nobody waits for longer than `seconds`; Python cannot stop it, only leave it."""
    box: dict[str, Any] = {}
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box["result"] = context.run(function, *args)
        except BaseException as exc:
            box["error"] = exc

    thread = threading.Thread(target=work, name="cmat-tool", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no result within {seconds:g} seconds")
    if "error" in box:
        raise box["error"]
    return box["result"]
