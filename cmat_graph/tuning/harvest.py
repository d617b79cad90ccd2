"""Pick training examples from episodes by a rule: what a node said on its way to a success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cmat_graph.tuning.old_dataset import SFTExample
from cmat_graph.types import Episode, Step


def harvest(episodes: Iterable[Episode], *, node: str = "assistant") -> tuple[list[SFTExample], Counter[str]]:
    """Return the assistant's examples, and how many episodes and steps were kept or left out and why.

    Of a solved episode only the last attempt teaches. A step that was sent back, was forced through or failed stays
    in the prompts of later steps, but is no target.
    """
    examples: list[SFTExample] = []
    counts: Counter[str] = Counter()
    for episode in episodes:
        counts["episodes"] += 1
        if not episode.solved:
            counts["episodes left out: not solved"] += 1
            continue
        for step in episode.steps:
            if step.node != node:
                continue
            counts["steps"] += 1
            reason = _why_not(step, episode)
            if reason:
                counts[f"steps left out: {reason}"] += 1
                continue
            examples.append(
                SFTExample(
                    prompt=step.messages,
                    completion=step.completion,
                    task_id=episode.task.id,
                    episode_id=episode.id,
                )
            )
    return examples, counts


def _why_not(step: Step, episode: Episode) -> str:
    if step.attempt != episode.attempts:
        return "earlier attempt"
    if step.observation is None:
        return "never ran"
    if step.observation_error:
        return "failed"
    if step.before is not None and step.before["source"] == "limit":
        return "forced"
    return ""
