"""The Checker: gates an action before it runs, and judges the attempt after it ran.

Cheap checks come first: the environment's own answer, then its read-only probes. A model judges only what they
leave open. No check sees a gold label, unless `use_reward` says so for training tasks.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime

from cmat_graph.nodes.calling import call_model, system_message, transcript
from cmat_graph.state import CmatState, Node, RunContext, context_of
from cmat_graph.types import Decision, Message, Source, Verdict

Checker = BaseChatModel | Literal["probes"] | None
Phase = Literal["before", "after"]
TRY = "Try another way."


def make_checker(checker: Checker, *, prompt: str, max_revisions: int, use_reward: bool) -> Node:
    """Build the node that judges.

    Args:
        checker: A chat model, `"probes"` for the environment's deterministic checks alone, or None: then every
            action runs and only the environment's own errors count.
        prompt: The checker model's system prompt.
        max_revisions: How often one action may be sent back; after that it runs as it is, marked as forced.
        use_reward: Let the environment's reward decide whether an attempt passed.

    """

    def check(state: CmatState, runtime: Runtime[RunContext]) -> CmatState:
        context = context_of(runtime)
        if state["draft"] is not None:
            verdict = before(state, runtime)
            change: CmatState = {"forced": verdict["source"] == "limit"}
            if verdict["decision"] == "revise":
                change = _send_back(state, verdict)
        else:
            verdict = after(state, runtime)
            change = _end(state) if state["done"] and verdict["decision"] == "approve" else CmatState()
            if verdict["decision"] != "approve":
                change = {"flaw": state["flaw"] or verdict["reason"], "done": True}
        if context.recorder is not None:
            context.recorder.verdict(state["step_id"], verdict)
        return {**change, "verdict": verdict}

    def before(state: CmatState, runtime: Runtime[RunContext]) -> Verdict:
        if checker is None:
            return _verdict("before", "approve", source="environment")
        if state["revisions"] >= max_revisions:
            return _verdict("before", "approve", reason="Revisions are used up.", source="limit")
        session = context_of(runtime).session
        finding = session.probe(state["draft"] or "") if session is not None else None
        if finding is not None and state["doubted"] != state["draft"]:
            return _verdict("before", "revise", reason=finding.text, hint=finding.hint, source="probes")
        if finding is not None and finding.certain:
            return _verdict("before", "approve", reason=f"Repeated in spite of: {finding.text}", source="limit")
        if checker == "probes":
            return _verdict("before", "approve", source="probes")
        return ask("before", f"Judge this action before it runs:\n{state['draft']}", state, runtime)

    def after(state: CmatState, runtime: Runtime[RunContext]) -> Verdict:
        context = context_of(runtime)
        if _is_stuck(state):
            return _verdict(
                "after",
                "reject",
                reason="Nothing new came of the last action.",
                hint=TRY,
                source="environment",
            )
        if not state["done"]:
            if state["round"] >= context.max_rounds:
                return _verdict(
                    "after",
                    "reject",
                    reason="No answer within the allowed rounds.",
                    hint="Answer sooner.",
                    source="environment",
                )
            return _verdict("after", "approve", source="environment")
        if use_reward and context.session is not None:
            reward = context.session.score()
            decision: Decision = "approve" if reward >= 1.0 else "revise"
            return _verdict("after", decision, reason=f"The reward is {reward:g}.", source="reward")
        if state["flaw"]:
            return _verdict("after", "revise", reason=state["flaw"], source="environment")
        if checker is None or checker == "probes":
            return _verdict("after", "approve", source="environment")
        return ask("after", f"Judge the finished attempt. Its answer:\n{state['answer']}", state, runtime)

    def ask(phase: Phase, request: str, state: CmatState, runtime: Runtime[RunContext]) -> Verdict:
        assert isinstance(checker, BaseChatModel)
        messages: list[Message] = [
            system_message(prompt, context_of(runtime).rules),
            {"role": "user", "content": f"{transcript(state)}\n\n{request}"},
        ]
        reply, _ = call_model(checker, "checker", messages, state, runtime)
        return parse_verdict(reply, phase)

    return check


def parse_verdict(reply: str, phase: Phase) -> Verdict:
    """Read a checker's reply leniently: JSON, else the first verdict word. Unreadable means revise, never approve."""
    decision, reason, hint = "", "", ""
    if found := re.search(r"\{.*\}", reply, re.DOTALL):
        try:
            read = json.loads(found.group())
            decision = str(read.get("verdict", "")).lower()
            reason, hint = str(read.get("reason", "")), str(read.get("hint", ""))
        except (json.JSONDecodeError, AttributeError):
            decision = ""
    if decision not in ("approve", "revise", "reject"):
        word = re.search(r"\b(approve|revise|reject)", reply.lower())
        decision = word.group(1) if word else ""
        reason = reason or " ".join(reply.split())[:300]
    if decision == "approve":
        return _verdict(phase, "approve", reason=reason, source="model")
    if decision == "reject":
        return _verdict(phase, "reject", reason=reason, hint=hint, source="model")
    return _verdict(
        phase, "revise", reason=reason or "The checker's reply could not be read.", hint=hint, source="model"
    )


def _verdict(phase: Phase, decision: Decision, *, source: Source, reason: str = "", hint: str = "") -> Verdict:
    return {"phase": phase, "decision": decision, "reason": reason, "hint": hint, "source": source}


def _send_back(state: CmatState, verdict: Verdict) -> CmatState:
    said = f"Checker: {verdict['reason']} {verdict['hint']}".strip()
    return {
        "draft": None,
        "doubted": state["draft"] or "",
        "revisions": state["revisions"] + 1,
        "trajectory": [*state["trajectory"], {"role": "user", "content": said}],
    }


def _is_stuck(state: CmatState) -> bool:
    """Tell whether the attempt brings nothing new: the same action and result twice running or three times in all,
    or the same error twice.
    """
    done = state["done_so_far"]
    if state["done"] or not done:
        return False
    if state["flaw"] and sum(seen == state["flaw"] for _, seen in done) > 1:
        return True
    return done[-1:] == done[-2:-1] or done.count(done[-1]) >= 3


def _end(state: CmatState) -> CmatState:
    return {"stopped": "passed", "messages": [AIMessage(state["answer"])]}
