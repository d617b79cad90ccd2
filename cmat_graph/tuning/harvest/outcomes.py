"""What became of each step of a node, and what an episode proves: the environment's word, not the checker's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cmat_graph.types import Episode, Step, Verdict

Outcome = Literal["good", "failed", "rejected", "forced", "never ran"]
OPINIONS = ("model", "human")
"""Who judges without the environment's word, and may err."""


@dataclass(frozen=True, slots=True)
class Act:
    """A step of the node that is trained for, and what became of it."""

    step: Step
    outcome: Outcome
    mends: bool = False
    """True when it worked where the one before it had not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What an episode proves."""

    attempt: int
    """The attempt that the reward is for."""
    reward: float | None
    solved: bool
    weight: float
    """Formula F10: the reward; 0 where the checker's last verdict contradicts it."""
    doubted: bool = False
    """True for such a contradiction."""


def acts_of(episode: Episode, node: str) -> list[Act]:
    """Return the steps of a node in their order, with what became of each.

    A graph of the user's own records no verdicts and no observations: there a step ran, and it failed if the result of
    a tool that it called says so.
    """
    steps = [step for step in episode.steps if step.node == node]
    judged = any(step.before or step.after or step.observation is not None for step in episode.steps)
    results = _results(episode.steps)
    acts: list[Act] = []
    for step in steps:
        outcome = _outcome(step, judged, results)
        before = acts[-1] if acts and acts[-1].step.attempt == step.attempt else None
        mends = outcome == "good" and before is not None and before.outcome in ("failed", "rejected")
        acts.append(Act(step, outcome, mends))
    return acts


def prove(episode: Episode, *, min_reward: float) -> Proof:
    """Tell what an episode proves.

    Args:
        episode: As it was recorded.
        min_reward: The reward that counts as solved. An episode without any reward, as a graph of the user's own
            leaves it, counts as unsolved, unless this is 0: then it counts with the weight 1.

    """
    attempt = _credited(episode)
    reward = episode.reward
    if reward is None:
        solved = min_reward == 0 and episode.stopped not in ("running", "error")
        return Proof(attempt=attempt, reward=None, solved=solved, weight=1.0 if solved else 0.0)
    solved = reward >= min_reward and reward > 0
    closing = closing_verdict(episode.steps, attempt)
    doubted = closing is not None and closing["source"] in OPINIONS and closing["passed"] != solved
    return Proof(
        attempt=attempt,
        reward=reward,
        solved=solved,
        weight=min(1.0, reward) if solved and not doubted else 0.0,
        doubted=doubted,
    )


def closing_verdict(steps: Iterable[Step], attempt: int) -> Verdict | None:
    """Return the last verdict on an attempt as a whole, if there was one."""
    closing = None
    for step in steps:
        if step.attempt == attempt and step.after is not None:
            closing = step.after
    return closing


def _credited(episode: Episode) -> int:
    """Return the attempt that the environment scored: the one that passed, else the one that the graph took for its
    best (by the checker's score, then one that answered, then the later).
    """
    last = max((step.attempt for step in episode.steps), default=1)
    if episode.stopped in ("passed", "ended") or last == 1:
        return last
    worth: dict[int, tuple[float, bool]] = {}
    for step in episode.steps:
        if step.before is not None and not step.before["passed"]:
            worth[step.attempt] = (0.0, False)  # an action that was not allowed to run is no answer
        elif step.after is not None:
            worth[step.attempt] = (step.after["score"], _answered(step.after))
    return max(worth, key=lambda attempt: (*worth[attempt], attempt), default=last)


def _answered(closing: Verdict) -> bool:
    stuck = closing["category"] == "repetition" and closing["source"] == "environment"
    return not stuck and closing["category"] not in ("incomplete", "budget")


def _outcome(step: Step, judged: bool, results: Mapping[int, Sequence[bool]]) -> Outcome:
    before, after = step.before, step.after
    if before is not None and not before["passed"]:
        return "rejected"
    if step.observation is None and after is not None and not after["passed"]:
        return "rejected"  # an answer that was sent back
    told = results.get(step.index, [])
    if step.observation_error or (step.observation is None and any(told)):
        return "failed"
    if before is not None and before["source"] == "limit":
        return "forced"
    ran = step.observation is not None or after is not None or bool(told) or not judged
    return "good" if ran else "never ran"


def _results(steps: Sequence[Step]) -> dict[int, list[bool]]:
    """Return, by a step's index, whether the results of its tool calls say that they failed.

    As far as the prompts of later steps show them: the next one of the same node, else of any. Some servers give the
    same id to a call of every turn, so a result is known by how often its id was seen before.
    """
    found: dict[int, list[bool]] = {}
    later: dict[tuple[int, str, str], list[bool]] = {}  # results by attempt, node and id, in the next prompt with any
    for step in reversed(steps):
        own: dict[str, list[bool]] = defaultdict(list)
        for message in step.messages:
            if message["role"] == "tool" and message.get("tool_call_id"):
                own[message["tool_call_id"]].append(bool(message.get("error")))
        for call in step.tool_calls:
            told = later.get((step.attempt, step.node, call["id"])) or later.get((step.attempt, "", call["id"]))
            if told:
                before = len(own.get(call["id"], ()))
                found.setdefault(step.index, []).append(told[before] if before < len(told) else told[-1])
        for name, results in own.items():
            later[step.attempt, step.node, name] = later[step.attempt, "", name] = results
    return found
