"""CMAT for an agent you already have: `create_agent(..., middleware=[CMATMiddleware("openai:gpt-5-mini")])`.

The agent stays what it is. Before it starts, lessons are recalled; each of its tool calls is gated and each of its
answers judged; a failed answer is sent back with a lesson. How one is judged, worded and remembered is the nodes'.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from functools import partial
from typing import Any, Literal

from langchain.agents.middleware import AgentMiddleware, ExtendedModelResponse, ModelRequest, ModelResponse, hook_config
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.config import get_config
from langgraph.constants import TAG_NOSTREAM
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from cmat_graph.errors import ConfigurationError
from cmat_graph.graph import Model, judge_for, speaker_for
from cmat_graph.memory.ranking import Policy
from cmat_graph.memory.short_term import window
from cmat_graph.middleware.requests import (
    CHECKER,
    AgentLoop,
    CMATAgentState,
    as_assistant,
    is_outermost,
    last_turn,
    noted,
    structured,
    task_at,
    with_lessons,
)
from cmat_graph.nodes import make_reflect
from cmat_graph.nodes.attempt import NO_ANSWER, Limits, announce, better, judgement, name_of, record_end, said, settle
from cmat_graph.nodes.calling import Prompt, Prompts, ask, from_langchain, show, transcript
from cmat_graph.nodes.checker import TRY, Probe
from cmat_graph.nodes.lessons import Memory
from cmat_graph.nodes.roles import other_role
from cmat_graph.nodes.seat import Call, Do, Seat, Turn
from cmat_graph.nodes.verdicts import parse_verdict
from cmat_graph.state import Loop, RunContext
from cmat_graph.traces.recorder import to_message
from cmat_graph.types import Decision, Finding, Message, Phase, StopReason, Verdict

SPEAK = "Speak only as the Assistant."
SHOWN_TOKENS = 3_000
"""How much of what happened the checker is shown; of the conversation before the task, a third of it."""

Judging = Generator[Call | Do, Any, Verdict]
Updating = Generator[Call | Do, Any, Any]


class CMATMiddleware(AgentMiddleware[CMATAgentState, Any, Any]):
    """Check, reflect, retry and remember, in an agent made by `create_agent`.

    Args:
        checker: Judges tool calls before they run and answers before they are given: a model, `"probes"` for the
            cheap checks alone, or None, which lets everything pass and only recalls lessons.
        checks: What is checked: tool calls `before` they run, answers `after` they are written.
        probes: Your own read-only checks of a turn; they come before any model.
        reflector: Writes a lesson from a failed answer; without one the agent is told the verdict's reason and hint.
        store: Long-term memory of lessons; without one, the store given to `create_agent(store=...)`. When it is down,
            the agent goes on without lessons.
        memory_policy: Which lessons are recalled, what they are worth, and when they are forgotten.
        env: What the lessons are kept by, such as the name of your app.
        split: Split of the tasks; lessons of one evaluation split are never shown for another.
        freeze_memory: Only read long-term memory.
        max_attempts: Answers that may be given to one task.
        max_revisions: How often in a row tool calls are sent back.
        on_exhausted: What happens to tool calls that are still doubted then: they run, marked as forced, or the
            attempt ends and they never run. Calls that the checker rejected never run.
        prompts: Your own system prompts of `checker` and `reflect`: texts or paths, or a folder of `NODE.md` files.

    The agent's result holds the best answer as its last message, and everything about the run under `cmat`, with the
    typed `stopped` reason. Add a `TraceHandler` to the callbacks and each run is recorded with its verdicts.

    Example:
        >>> from langchain.agents import create_agent
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> model = ScriptedChatModel(replies=["Lyon.", "Paris."])
        >>> checker = ScriptedChatModel(replies=["revise: look at a map", "approve"])
        >>> agent = create_agent(model, middleware=[CMATMiddleware(checker)])
        >>> result = agent.invoke({"messages": [("user", "The capital of France?")]})
        >>> result["messages"][-1].text, result["cmat"]["stopped"], result["cmat"]["attempt"]
        ('Paris.', 'passed', 2)

    """

    state_schema = CMATAgentState

    def __init__(
        self,
        checker: Model | Literal["probes"] | None = "probes",
        *,
        checks: Collection[Phase] = ("before", "after"),
        probes: Sequence[Probe] = (),
        reflector: Model | None = None,
        store: BaseStore | None = None,
        memory_policy: Policy | None = None,
        env: str = "",
        split: str = "",
        freeze_memory: bool = False,
        max_attempts: int = 3,
        max_revisions: int = 2,
        on_exhausted: Literal["execute", "abort"] = "execute",
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__()
        if max_attempts < 1 or max_revisions < 0:
            raise ConfigurationError("max_attempts must be at least 1 and max_revisions at least 0")
        self._checks = checks if checker is not None else ()
        self._checker = judge_for(checker) if checker is not None and checker != "probes" else None
        self._probes = tuple(probes)
        self._memory = Memory(store, memory_policy)
        self._context = RunContext(env=env, split=split, freeze_memory=freeze_memory)
        self._max_attempts, self._max_revisions, self._on_exhausted = max_attempts, max_revisions, on_exhausted
        self._prompt, reflect = Prompt("checker", prompts), Prompt("reflect", prompts)
        writer = speaker_for(reflector) if reflector is not None else None
        self._reflects = writer is not None or store is not None
        limits = Limits(max_attempts=max_attempts, memory=self._memory)
        self._reflect = make_reflect(writer, prompt=reflect, limits=limits)
        seats = ((self._checker, self._prompt), (writer, reflect))
        self._roles = {p.version.split("@")[0]: f"{seat.label} {p.version}" for seat, p in seats if seat is not None}

    # -- what LangChain calls: each hook twice, for `invoke` and for `ainvoke` ------------------------------------

    def before_agent(self, state: CMATAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Recall what is known about tasks like this one."""
        return _play(self._open, state)

    async def abefore_agent(self, state: CMATAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Recall what is known about tasks like this one."""
        return await _aplay(self._open, state)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Show the lessons beside the task, and look at the arguments of the tool calls that come back."""
        request = with_lessons(request)
        with as_assistant(request) as step:
            response = handler(request)
            return noted(request, response, step())

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """Show the lessons beside the task, and look at the arguments of the tool calls that come back."""
        request = with_lessons(request)
        with as_assistant(request) as step:
            response = await handler(request)
            return await asyncio.to_thread(noted, request, response, step())

    @hook_config(can_jump_to=["model", "end"])
    def after_model(self, state: CMATAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Gate tool calls; judge an answer."""
        return _play(partial(self._check, state), state)

    @hook_config(can_jump_to=["model", "end"])
    async def aafter_model(self, state: CMATAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Gate tool calls; judge an answer."""
        return await _aplay(partial(self._check, state), state)

    def after_agent(self, state: CMATAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Note the end of a run that nothing here ended, such as one by a tool that returns directly."""
        return _play(self._close, state)

    async def aafter_agent(self, state: CMATAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Note the end of a run that nothing here ended, such as one by a tool that returns directly."""
        return await _aplay(self._close, state)

    # -- how a run begins and ends --------------------------------------------------------------------------------

    def _open(self, turn: Turn) -> Updating:
        at = task_at(turn.messages)
        task = str(turn.messages[at].text) if at >= 0 else ""
        turn.context = self._context
        opened = self._opened(turn, task, (yield from self._memory.recall(turn, task)))
        if turn.recorder is not None and is_outermost(turn.config):
            turn.recorder.assign(task=task, roles=self._roles)
        turn.loop = opened
        turn.emit("task", episode=opened["episode"], roles=self._roles, lessons=opened["lessons"])
        return {"cmat": opened}

    def _opened(self, turn: Turn, task: str, recalled: Loop) -> AgentLoop:
        noted: AgentLoop = turn.loop  # type: ignore[assignment]
        return {
            "episode": turn.recorder.episode_id if turn.recorder is not None else uuid.uuid4().hex,
            "task": task,
            "roles": self._roles,
            **recalled,
            "attempt": 1,
            "revisions": 0,
            "forced": False,
            "step": noted.get("step", ""),
            "misuse": noted.get("misuse", {}),
            "doubted": "",
            "tried": [],
            "unreadable": 0,
            "best": None,
            "answer": "",
            "stopped": "running",
        }

    def _finish(
        self, turn: Turn, stopped: StopReason, change: AgentLoop, answers: Sequence[AnyMessage] = ()
    ) -> Updating:
        """End with the best attempt's answer as the last message; it is there already when it was the last."""
        best = change["best"]
        assert best is not None
        yield from self._record_end(turn, stopped, best["answer"])
        ended: AgentLoop = {**change, "stopped": stopped, "answer": best["answer"]}
        if stopped == "passed" or (best["answer"] and best["attempt"] == turn.loop["attempt"] and not answers):
            return {"cmat": ended}
        return {"cmat": ended, "messages": [*answers, AIMessage(best["answer"] or NO_ANSWER)]}

    def _close(self, turn: Turn) -> Updating:
        if turn.loop.get("stopped") != "running":
            return None
        turn.context = self._context
        last, _ = last_turn(turn.messages)
        answer = str(last.text) if last is not None else ""
        yield from self._record_end(turn, "ended", answer)
        return {"cmat": {"stopped": "ended", "answer": answer}}

    def _record_end(self, turn: Turn, stopped: StopReason, answer: str) -> Generator[Call | Do, Any, None]:
        if is_outermost(turn.config):
            yield from record_end(turn, stopped, answer)
        turn.emit("end", stopped=stopped, answer=answer)

    # -- how a turn of the agent is judged ------------------------------------------------------------------------

    def _check(self, state: CMATAgentState, turn: Turn) -> Updating:
        opened: AgentLoop = {}
        if turn.loop.get("stopped") != "running":  # another middleware went on, past our `before_agent`
            at = task_at(turn.messages)
            turn.loop = opened = self._opened(turn, str(turn.messages[at].text) if at >= 0 else "", {"lessons": []})
        update = yield from self._decide(turn, structured=state.get("structured_response") is not None)
        if update is None:
            return None
        update["cmat"] = {**opened, **update["cmat"]}
        if update["cmat"].get("stopped", "running") != "running" and "structured_response" in state:
            update.update(structured(state["structured_response"], update))
        return update

    def _decide(self, turn: Turn, *, structured: bool) -> Updating:
        message, answered = last_turn(turn.messages)
        if message is None:
            return None
        turn.context = self._context
        turn.asking = {**turn.config, "tags": [*(turn.config.get("tags") or ()), TAG_NOSTREAM]}
        since = turn.messages[task_at(turn.messages, turn.loop["task"]) + 1 :]
        recent = window([_as_record(m) for m in since], max_tokens=SHOWN_TOKENS).kept
        turn.loop = {**turn.loop, "trajectory": recent}
        draft = from_langchain(message)
        waiting = [call for call in draft.get("tool_calls", ()) if call["id"] not in answered]
        if waiting:
            return (yield from self._gate(turn, {**draft, "tool_calls": waiting}))
        if not message.tool_calls:
            mendable = "before" in self._checks and turn.loop["revisions"] < self._max_revisions
            handle = self._gate if "garbled" in draft and mendable else self._judge
            return (yield from handle(turn, draft))
        if not structured:
            return None
        given = json.dumps(message.tool_calls[-1]["args"])
        return (yield from self._judge(turn, Message(role="assistant", content=given)))

    def _gate(self, turn: Turn, draft: Message) -> Updating:
        verdict = yield from self._before(turn, draft)
        change = _decided(turn, verdict)
        if verdict["decision"] == "approve":
            ran: AgentLoop = {**change, "forced": verdict["source"] == "limit", "revisions": 0, "doubted": ""}
            return {"cmat": ran}
        text = f"Checker: {said(verdict)}"
        answers: list[AnyMessage] = [
            ToolMessage(f"Not run. {text}", tool_call_id=call["id"], name=call["name"], status="error")
            for call in draft.get("tool_calls", ())
        ]
        if turn.loop["revisions"] >= self._max_revisions:
            return (yield from self._fail(turn, draft, verdict, change, answers))
        change = {**change, "doubted": name_of(draft), "revisions": turn.loop["revisions"] + 1}
        return {"messages": answers or [HumanMessage(text, name=CHECKER)], "cmat": change, "jump_to": "model"}

    def _before(self, turn: Turn, draft: Message) -> Judging:
        loop = turn.loop
        if "before" not in self._checks:
            return judgement("before", "approve", source="environment")
        if flipped := other_role(draft):
            return _against("before", Finding(text=flipped, hint=SPEAK, category="role"), "reject")
        finding = yield from self._probe(turn, draft)
        if finding is not None and (finding.certain or loop["doubted"] != name_of(draft)):
            verdict = _against("before", finding)
        else:
            request = f"Judge this action before it runs:\n{show(draft)}"
            verdict = yield from self._consult(turn, "before", request, finding)
            if finding is not None and self._checker is None and self._on_exhausted == "abort":
                verdict = _against("before", finding, "reject")  # the agent insists, and nobody is there to be asked
        if verdict["decision"] != "revise" or loop["revisions"] < self._max_revisions:
            return verdict
        if self._on_exhausted == "abort":
            return {**verdict, "decision": "reject"}
        reason = f"Revisions are used up. {said(verdict)}"
        return judgement("before", "approve", source="limit", score=0.0, reason=reason)

    def _judge(self, turn: Turn, draft: Message) -> Updating:
        spoken = "" if "after" in self._checks and other_role(draft) else draft["content"]
        turn.loop = {**turn.loop, "answer": spoken, "done": True}
        verdict = yield from self._after(turn, draft)
        change = _decided(turn, verdict)
        if verdict["decision"] == "approve":
            settled = yield from settle(turn, verdict, self._memory)
            best = better(None, {**turn.loop, "done_so_far": []}, verdict)
            passed: AgentLoop = {**change, **settled, "best": best}
            return (yield from self._finish(turn, "passed", passed))
        return (yield from self._fail(turn, draft, verdict, change))

    def _after(self, turn: Turn, draft: Message) -> Judging:
        loop = turn.loop
        if "after" not in self._checks:
            return judgement("after", "approve", source="environment")
        if not draft["content"].strip() and "garbled" not in draft:
            return _against("after", Finding(text="The reply is empty.", category="format"))
        if flipped := other_role(draft):
            return _against("after", Finding(text=flipped, hint=SPEAK, category="role"))
        finding = yield from self._probe(turn, draft)
        insists = name_of(draft) in loop["tried"]
        if insists and (finding is None or finding.certain or loop["verdict"]["source"] != "probes"):
            return _against("after", Finding(text="The same answer again.", hint=TRY, category="repetition"), "reject")
        if finding is not None and not insists:
            return _against("after", finding)
        return (
            yield from self._consult(
                turn, "after", f"Judge the finished attempt. Its answer:\n{draft['content']}", finding
            )
        )

    def _probe(self, turn: Turn, draft: Message) -> Generator[Call | Do, Any, Finding | None]:
        if garbled := draft.get("garbled"):
            text = f"The call of {garbled!r} is no valid JSON."
            return Finding(text=text, hint="Write its arguments as JSON.", category="format")
        misuse: dict[str, Any] = turn.loop.get("misuse") or {}  # type: ignore[assignment]
        if noted := misuse.get(name_of(draft)):
            return Finding(**noted)
        for look in self._probes:
            found: Finding | None = yield Do(look, draft)
            if found is not None:
                return found
        return None

    def _consult(self, turn: Turn, phase: Phase, request: str, finding: Finding | None) -> Judging:
        """Ask the checker's model, if there is one, about what the cheap checks leave open."""
        if self._checker is None:
            return judgement(phase, "approve", source="probes")
        at = max(0, task_at(turn.messages, turn.loop["task"]))
        earlier = window([_as_record(m) for m in turn.messages[:at]], max_tokens=SHOWN_TOKENS // 3).kept
        before = "".join(f"{message['role']}: {show(message)}\n" for message in earlier)
        noticed = f"\nA probe noticed: {finding.text} {finding.hint}" if finding is not None else ""
        messages: list[Message | AnyMessage] = [
            self._prompt.fill(""),
            {"role": "user", "content": f"{before}{transcript(turn.loop)}\n\n{request}{noticed}"},
        ]
        reply = yield from ask(turn, "checker", self._checker, messages, None)
        return parse_verdict(reply.message, phase)

    # -- how a failed attempt leads to the next one ---------------------------------------------------------------

    def _fail(
        self,
        turn: Turn,
        draft: Message,
        verdict: Verdict,
        change: AgentLoop,
        answers: Sequence[AnyMessage] = (),
    ) -> Updating:
        settled = yield from settle(turn, verdict, self._memory)
        loop: Loop = {**turn.loop, **settled}
        turn.loop = loop
        lesson, learned = yield from self._learn(turn, verdict)
        done = name_of(draft)
        change = {
            **change,
            **settled,
            **learned,
            "best": better(loop["best"], {**loop, "done_so_far": []}, verdict),
            "tried": [*loop["tried"], done],
            "revisions": 0,
            "doubted": "",
            "answer": "",
        }
        stopped: StopReason | None = None
        if done in loop["tried"]:
            stopped = "repeated"
        elif loop["attempt"] >= self._max_attempts:
            stopped = "rejected" if verdict["phase"] == "before" else "attempts"
        if stopped is not None:
            return (yield from self._finish(turn, stopped, change, answers))
        turn.loop = {**loop, "attempt": loop["attempt"] + 1}
        turn.emit("attempt", lessons=[lesson])
        told = HumanMessage(f"Checker: {lesson}", name=CHECKER)
        again: AgentLoop = {**change, "attempt": turn.loop["attempt"]}
        return {"messages": [*answers, told], "cmat": again, "jump_to": "model"}

    def _learn(self, turn: Turn, verdict: Verdict) -> Generator[Call | Do, Any, tuple[str, AgentLoop]]:
        """Let the reflection write, record and remember the lesson; without one the verdict speaks for itself."""
        if not self._reflects and turn.runtime.store is None:
            return said(verdict), {}
        loop = turn.loop
        turn.loop = {**loop, "verdict": verdict, "flaw": verdict["reason"], "done": True}
        update = yield from self._reflect(turn)
        turn.loop = loop
        told: Loop = update["cmat"]
        learned: AgentLoop = {}
        if "learned" in told:
            learned = {"learned": told["learned"], "memory_failures": told["memory_failures"]}
        return told["lessons"][-1], learned


def _play(node: Callable[[Turn], Updating], state: Any) -> dict[str, Any] | None:
    update: Any = Seat(node).invoke(state, get_config())
    return update  # type: ignore[no-any-return]


async def _aplay(node: Callable[[Turn], Updating], state: Any) -> dict[str, Any] | None:
    update: Any = await Seat(node).ainvoke(state, get_config())
    return update  # type: ignore[no-any-return]


def _as_record(message: AnyMessage) -> Message:
    told = to_message(message)
    if isinstance(message, ToolMessage) and message.status == "error":
        told["error"] = True
    return told


def _against(phase: Phase, finding: Finding, decision: Decision = "revise") -> Verdict:
    return judgement(
        phase, decision, source="probes", category=finding.category, reason=finding.text, hint=finding.hint
    )


def _decided(turn: Turn, verdict: Verdict) -> AgentLoop:
    announce(turn, verdict)
    return {"verdict": verdict, "unreadable": turn.loop["unreadable"] + (verdict["category"] == "unreadable")}
