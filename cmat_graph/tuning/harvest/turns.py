"""Turns of the assistant, or of any node of a graph: what it said on its way to a success.

The turns of an attempt become one conversation wherever a prompt goes on from the one before and its reply. A try that
was sent back, failed, was forced or never ran stays in it as context, and is no target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from cmat_graph.tuning.dataset import Kind, WeightedMessage
from cmat_graph.tuning.harvest.conversation import Conversation, Mark
from cmat_graph.tuning.harvest.leaks import quotes_answer
from cmat_graph.tuning.harvest.messages import name_of_action, reply_of, shown, size_of
from cmat_graph.tuning.harvest.outcomes import Act, Proof, acts_of, prove
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.harvest.wording import reason_first
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Episode

REPAIR = 2.0
"""Weight of a turn that mended a failure, against an ordinary one: it is seldom, and it is what a retry lives from.
This project's own choice; the paper names no number."""


def conversations(episode: Episode, settings: HarvestSettings, tally: Tally) -> Iterator[Conversation]:
    """Return the conversations of an episode that teach something, be it only what not to do."""
    proof = prove(episode, min_reward=settings.min_reward)
    acts = acts_of(episode, settings.node)
    tally.took("collect", "steps", len(acts))
    if not proof.solved:
        tally.left("filter", "episodes", "not solved")
    elif proof.doubted:
        tally.left("filter", "episodes", "the verdict contradicts the environment")
    tried = {name_of_action(reply_of(act.step)) for act in acts if act.step.attempt < proof.attempt}
    for attempt, group in groupby(acts, key=lambda act: act.step.attempt):
        own = list(group)
        chain = _Chain(settings, tally, steps=len(own))
        waiting: list[Mark] = []
        for act in own:
            why = _why_not(act, proof, episode)
            if why:
                tally.left("filter", "steps", why)
            name = name_of_action(reply_of(act.step))
            mends = not why and (act.mends or bool(tried and name not in tried))
            weight = 0.0 if why else proof.weight * (REPAIR if mends else 1.0) * _told_weight(act)
            mark = _mark(act, weight, wrong=attempt == proof.attempt and act is own[-1] and _answers_wrong(proof))
            if mark is not None and not mark.good:
                waiting.append(mark)
            elif mark is not None:
                for bad in waiting:
                    bad.mended = mark
                waiting = []
            yield from chain.add(act, weight, mark, mends=mends)
        yield from chain.flush()


class _Chain:
    """A conversation that grows while each prompt goes on from the last reply."""

    def __init__(self, settings: HarvestSettings, tally: Tally, *, steps: int) -> None:
        self._settings, self._tally, self._steps = settings, tally, steps
        self._begin()

    def _begin(self) -> None:
        self._raw: list[Any] = []
        self._messages: list[WeightedMessage] = []
        self._marks: list[Mark] = []
        self._tools: list[dict[str, Any]] = []
        self._size = 0
        self._mends = False

    def add(self, act: Act, weight: float, mark: Mark | None, *, mends: bool) -> Iterator[Conversation]:
        """Add a step; what it does not go on from is handed over."""
        step, reply = act.step, reply_of(act.step)
        known = len(self._raw)
        new = step.messages[known:]
        size = sum(map(size_of, new)) + size_of(reply)
        goes_on = known > 0 and step.messages[:known] == self._raw and step.tools == self._tools
        if not goes_on or self._size + size > self._settings.max_chars:
            yield from self.flush()
            new = step.messages
            size = sum(map(size_of, new)) + size_of(reply)
            self._tools = step.tools
        self._messages += [shown(message) for message in new]
        if mark is not None:
            mark.at = len(self._messages)
            self._marks.append(mark)
        if weight > 0:
            reply["weight"] = round(weight, 6)
            self._mends = self._mends or mends
        self._messages.append(reason_first(reply) if weight > 0 and self._settings.reason_first else reply)
        self._size += size
        if "reasoning" in reply:  # later prompts were made without it, so the next one begins anew
            yield from self.flush()
        else:
            self._raw = [*step.messages, {name: value for name, value in reply.items() if name != "weight"}]

    def flush(self) -> Iterator[Conversation]:
        """Hand the conversation over, if it teaches anything, and begin another."""
        targets = [message for message in self._messages if message.get("weight")]
        if self._size > self._settings.max_chars:
            self._tally.left("filter", "steps", "too long", len(targets))
        elif targets or self._marks:
            kind: Kind = "turn"
            if self._mends:
                kind = "repair"
            elif any(message.get("tool_calls") for message in targets):
                kind = "tool_turn"
            yield Conversation(
                messages=self._messages, tools=self._tools, kind=kind, steps=self._steps, marks=self._marks
            )
        self._begin()


def _why_not(act: Act, proof: Proof, episode: Episode) -> str:
    """Say why a step is no target; empty when it is one."""
    step = act.step
    if proof.doubted or not proof.solved:
        return "in an episode that is left out"
    if step.attempt != proof.attempt:
        return "earlier attempt" if step.attempt < proof.attempt else "not the attempt that was solved"
    if act.outcome != "good":
        return {"rejected": "sent back"}.get(act.outcome, act.outcome)
    if not step.completion.strip() and not step.tool_calls:
        return "format"
    return "a lesson quotes the answer" if quotes_answer(step.messages, episode) else ""


def _mark(act: Act, weight: float, *, wrong: bool) -> Mark | None:
    if act.outcome == "rejected":
        return Mark(at=-1, good=False, contrast="rejected")
    if act.outcome == "failed" or (act.outcome == "good" and wrong):
        return Mark(at=-1, good=False, contrast="failed")
    return Mark(at=-1, good=True) if weight > 0 else None


def _answers_wrong(proof: Proof) -> bool:
    """Tell whether the environment says that an attempt's last word was wrong."""
    return not proof.solved and proof.reward is not None


def _told_weight(act: Act) -> float:
    """Return what an import said of a turn's share in the loss; 1 where nothing was said."""
    told = act.step.told.get("weight", 1.0)
    return max(0.0, float(told)) if isinstance(told, (int, float)) and math.isfinite(told) else 1.0
