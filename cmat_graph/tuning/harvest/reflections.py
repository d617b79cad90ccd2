"""Lessons, weighted by what they changed (formula F8): the reward that the next attempt gained."""

from __future__ import annotations

from collections.abc import Iterator

from cmat_graph.tuning.dataset import WeightedMessage
from cmat_graph.tuning.harvest.conversation import Conversation, Mark
from cmat_graph.tuning.harvest.messages import reply_of, shown, size_of
from cmat_graph.tuning.harvest.outcomes import Proof, acts_of, closing_verdict, prove
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Episode, Step

_OPENING = 6
"""Words by which a lesson that was kept is known again; it may have been shortened."""


def conversations(episode: Episode, settings: HarvestSettings, tally: Tally) -> Iterator[Conversation]:
    """Return one conversation for each lesson whose effect is known; only those that helped have a weight."""
    proof = prove(episode, min_reward=settings.min_reward)
    own = [step for step in episode.steps if step.node == settings.node]
    for at, step in enumerate(own):
        tally.took("collect", "steps")
        if at + 1 < len(own) and own[at + 1].messages[: len(step.messages)] == step.messages:
            tally.left("filter", "steps", "sent back")
        elif not _was_kept(step, episode):
            tally.left("filter", "steps", "the lesson was not kept")
        elif sum(map(size_of, step.messages)) > settings.max_chars:
            tally.left("filter", "steps", "too long")
        else:
            gain = _gain(step, episode, proof)
            if isinstance(gain, str):
                tally.left("filter", "steps", gain)
                continue
            if gain <= 0:
                tally.left("filter", "steps", "the lesson changed nothing for the better")
            yield _row(step, gain)


def _row(step: Step, gain: float) -> Conversation:
    prompt: list[WeightedMessage] = [shown(message) for message in step.messages]
    lesson = reply_of(step)
    if gain > 0:
        lesson["weight"] = round(gain, 6)
    mark = Mark(at=len(prompt), good=gain > 0, contrast=None if gain > 0 else "failed")
    return Conversation(messages=[*prompt, lesson], tools=step.tools, kind="reflection", marks=[mark])


def _gain(step: Step, episode: Episode, proof: Proof) -> float | str:
    """Return R(k+1) - R(k), or say why it is not known.

    A lesson in the middle of an attempt comes from an error: what worked right after it gained the attempt's reward.
    """
    later = [each for each in episode.steps if each.index > step.index and each.node != step.node]
    acting = {each.node for each in later} - {"checker", "user", "summary"}
    acts = [act for node in acting for act in acts_of(episode, node) if act.step.index > step.index]
    within = [act for act in acts if act.step.attempt == step.attempt]
    if within and proof.reward is None:
        return "an attempt without a reward"
    if within:
        first = min(within, key=lambda act: act.step.index)
        helped = first.outcome == "good" and proof.solved and step.attempt == proof.attempt
        return proof.weight if helped else 0.0
    if not acts:
        return "no later attempt"
    following = min(act.step.attempt for act in acts)
    before, after = _reward(episode, proof, step.attempt), _reward(episode, proof, following)
    if before is None or after is None:
        return "an attempt without a reward"
    return max(-1.0, min(1.0, after - before))


def _reward(episode: Episode, proof: Proof, attempt: int) -> float | None:
    """Return an attempt's reward: the environment's where it is recorded, 0 where the attempt was not passed."""
    if attempt == proof.attempt:
        return proof.reward
    closing = closing_verdict(episode.steps, attempt)
    if closing is not None and closing["source"] == "reward":
        return closing["score"]
    return 0.0 if attempt < proof.attempt else None


def _was_kept(step: Step, episode: Episode) -> bool:
    said = " ".join(step.completion.split())
    kept = [" ".join(each.text.split()[:_OPENING]) for each in episode.reflections if each.attempt == step.attempt]
    return bool(said) and any(opening and opening in said for opening in kept)
