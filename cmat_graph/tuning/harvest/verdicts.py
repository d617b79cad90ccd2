"""Verdicts of the checker, labelled by what the environment then did, never by the checker's own opinion.

Before an action ran: whether it ran without an error and its attempt succeeded. After an attempt: its reward. A verdict
about what never ran, or about a harmless step of an attempt that failed for another reason, has no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cmat_graph.tuning.dataset import Kind, WeightedMessage
from cmat_graph.tuning.harvest.conversation import Conversation, Mark
from cmat_graph.tuning.harvest.messages import reply_of, shown, size_of
from cmat_graph.tuning.harvest.outcomes import Act, Proof, acts_of, prove
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.harvest.wording import verdict_reply
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Episode, Step, Verdict

BEFORE, AFTER = "Judge this action before it runs:", "Judge the finished attempt."
"""How the checker's node says what it wants judged."""
_WATCHES = ("checker", "reflect", "user", "summary")
_CODE = re.compile(r"```\w*\s*(.*?)```", re.DOTALL)
_FORCED = "Revisions are used up. "


class _Label(NamedTuple):
    """What the checker should have said."""

    approve: bool
    score: float
    reason: str
    hint: str = ""


def conversations(episode: Episode, settings: HarvestSettings, tally: Tally) -> Iterator[Conversation]:
    """Return one conversation for each verdict that the environment confirmed or refuted."""
    proof = prove(episode, min_reward=settings.min_reward)
    acting = {step.node for step in episode.steps if step.node not in _WATCHES and step.node != settings.node}
    acts = {act.step.index: act for node in acting for act in acts_of(episode, node)}
    order = [acts[index] for index in sorted(acts)]
    for step in episode.steps:
        if step.node != settings.node:
            continue
        tally.took("collect", "steps")
        judged = max((index for index in acts if index < step.index), default=None)
        if judged is None or acts[judged].step.attempt != step.attempt:
            tally.left("filter", "steps", "nothing that it judges")
            continue
        act = acts[judged]
        asked = step.messages[-1]["content"] if step.messages else ""
        before = asked.rfind(BEFORE) > asked.rfind(AFTER) or (AFTER not in asked and act.step.after is None)
        label = _before(act, order, proof) if before else _after(act, order, proof)
        if isinstance(label, str):
            tally.left("filter", "steps", label)
        elif sum(map(size_of, step.messages)) > settings.max_chars:
            tally.left("filter", "steps", "too long")
        else:
            yield from _rows(step, label, act.step.before if before else act.step.after)


def _rows(step: Step, label: _Label, own: Verdict | None) -> Iterator[Conversation]:
    """Return the right verdict as a target, and the checker's own as a worse one where it was wrong."""
    said = _own_decision(own)
    reason, hint = label.reason, label.hint
    if own is not None and said is label.approve:
        reason = own["reason"].removeprefix(_FORCED) or reason
        hint = hint or ("" if label.approve else own["hint"])
    prompt: list[WeightedMessage] = [shown(message) for message in step.messages]
    target = _reply(step, label, reason, hint) | {"weight": 1.0}
    kind: Kind = "correction" if hint and not label.approve and hint == label.hint else "verdict"
    side = "approve" if label.approve else "revise"
    yield Conversation(
        messages=[*prompt, target],  # type: ignore[list-item]
        tools=step.tools,
        kind=kind,
        side=side,
        marks=[Mark(at=len(prompt), good=True)],
    )
    if said is not None and said is not label.approve:
        wrong = reply_of(step)
        yield Conversation(
            messages=[*prompt, wrong], tools=step.tools, marks=[Mark(at=len(prompt), good=False, contrast="verdict")]
        )


def _reply(step: Step, label: _Label, reason: str, hint: str) -> WeightedMessage:
    """Write the verdict the way this checker gives it: as JSON in its text, or as the call of a tool."""
    for call in step.tool_calls:
        if "verdict" in call["args"]:
            decision = "approve" if label.approve else "revise"
            args = {"reason": reason, "verdict": decision, "score": label.score, "hint": hint}
            return {"role": "assistant", "content": "", "tool_calls": [{**call, "args": args}]}
    text = verdict_reply(approve=label.approve, reason=reason, score=label.score, hint=hint)
    return {"role": "assistant", "content": text}


def _before(act: Act, order: Sequence[Act], proof: Proof) -> _Label | str:
    """Label a verdict on an action; a text says why there is no label."""
    credited = act.step.attempt == proof.attempt
    if act.outcome == "failed":
        seen = (act.step.observation or "").strip().splitlines()
        reason = f"This fails: {seen[0]}" if seen else "This fails when it runs."
        return _Label(False, 0.0, reason, _what_mended(act, order, proof))
    if act.outcome not in ("good", "forced"):
        return "the action never ran"
    if not credited or proof.reward is None:
        return "an attempt without a reward"
    if proof.solved:
        return _Label(True, 1.0, "This runs without an error and serves the task.")
    if act is _last(order, proof):
        return _Label(False, 0.0, "This does not solve the task.")
    return "it ran, and the attempt failed for another reason"


def _after(act: Act, order: Sequence[Act], proof: Proof) -> _Label | str:
    """Label a verdict on an attempt; a text says why there is no label."""
    if act.step.attempt != proof.attempt or proof.reward is None:
        return "an attempt without a reward"
    if act.outcome not in ("good", "forced", "failed") or act is not _last(order, proof):
        return "the answer was not the last"
    if proof.solved:
        return _Label(True, min(1.0, proof.reward), "The answer solves the task.")
    return _Label(False, max(0.0, proof.reward), "The answer does not solve the task.")


def _last(order: Sequence[Act], proof: Proof) -> Act | None:
    return next((act for act in reversed(order) if act.step.attempt == proof.attempt), None)


def _what_mended(act: Act, order: Sequence[Act], proof: Proof) -> str:
    """Return the action that did better right after: its code, if it has any."""
    at = order.index(act)
    better = order[at + 1] if at + 1 < len(order) else None
    if better is None or not better.mends or not proof.solved or better.step.attempt != proof.attempt:
        return ""
    code = _CODE.findall(better.step.completion)
    return f"Instead: {(code[-1] if code else better.step.completion).strip()}" if better.step.completion else ""


def _own_decision(own: Verdict | None) -> bool | None:
    """Return whether the checker approved; None where what is recorded is not its own word, or was unreadable."""
    if own is None or own["category"] == "unreadable":
        return None
    if own["source"] == "limit":
        return False if own["reason"].startswith(_FORCED) else None
    return own["passed"] if own["source"] in ("model", "human") else None
