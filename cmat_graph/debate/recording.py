"""Debates in the trace database: an episode for each question, a step for each call. And read back as debates."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cmat_graph.debate.asking import Answered, Asked, clean
from cmat_graph.debate.playing import Played, play
from cmat_graph.debate.records import Debate, Said
from cmat_graph.debate.rounds import DebateSettings, Rules
from cmat_graph.errors import ConfigurationError
from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Episode, Step, StopReason, Task

_FAILED = re.compile(r"^((?:generator|critic|summary)-\d+) in round (\d+): (.*)$", re.MULTILINE)
_Call = TypeVar("_Call", bound=Said)
Place = tuple[str, int]
"""A node, and the round in which it was called."""


@dataclass(slots=True, kw_only=True)
class Kept:
    """What is known of a debate from an earlier run."""

    episode: str = field(default_factory=lambda: uuid.uuid4().hex)
    replies: dict[Place, Step] = field(default_factory=dict)
    errors: dict[Place, str] = field(default_factory=dict)
    """Calls that failed; only of a debate that ended, those of others are asked again."""
    stored: Callable[[str], str] = str
    """How the traces keep a text."""
    ended: bool = False
    reward: float | None = None
    answer: str = ""

    @classmethod
    def of(cls, episode: Episode, *, stored: Callable[[str], str] = str) -> Kept:
        """Take what an episode tells."""
        ended = episode.stopped == "ended"
        errors = {(node, int(round_)): told for node, round_, told in _FAILED.findall(episode.error)} if ended else {}
        replies = {(step.node, step.attempt): step for step in episode.steps}
        return cls(
            episode=episode.id,
            replies=replies,
            errors=errors,
            stored=stored,
            ended=ended,
            reward=episode.reward,
            answer=episode.answer,
        )

    def answer_to(self, asked: Asked) -> Answered | None:
        """Return what is known to have been answered; None where it must be asked."""
        place = (asked.node, asked.round)
        step = self.replies.get(place)
        if step is None:
            error = self.errors.get(place, "the call was not recorded")
            return Answered(error=error) if self.ended else None
        if not self.ended and not self._was_asked(step, asked):
            return None  # somebody who had failed before has spoken now
        return Answered(
            text=step.completion,
            model=step.model,
            adapter=step.adapter,
            input_tokens=step.input_tokens,
            output_tokens=step.output_tokens,
            seconds=step.seconds,
            told=step.told,
            key=step.key,
        )

    def _was_asked(self, step: Step, asked: Asked) -> bool:
        now = [(each["role"], self.stored(each["content"])) for each in asked.messages]
        return [(each["role"], each["content"]) for each in step.messages] == now


class Tape:
    """Records debates as they are played.

    Args:
        traces: Where to write.
        env: The environment's name.
        run: Label of the run.
        settings: Kept with each episode, to repeat it.
        roles: Which model sits where.

    """

    def __init__(
        self, traces: TraceStore, *, env: str, run: str, settings: dict[str, Any], roles: dict[str, str]
    ) -> None:
        self._traces, self._env, self._run = traces, env, run
        self._settings, self._roles = settings, roles
        self._written: dict[str, int] = {}

    def kept(self, tasks: Iterable[Task]) -> dict[str, Kept]:
        """Read back what an earlier run of the same label recorded of these tasks.

        Raises:
            ConfigurationError: It was played otherwise: other tasks, settings or models.

        """
        wanted = {task.id[:200]: task for task in tasks}
        found: dict[str, Kept] = {}
        for episode in self._traces.episodes(run=self._run, env=self._env):
            task = wanted.get(episode.task.id)
            if task is None or (task.id in found and found[task.id].ended):
                continue
            if episode.settings != self._settings:
                told = _difference(episode.settings.get("debate", {}), self._settings["debate"])
                raise ConfigurationError(f"run {self._run!r} was recorded otherwise ({told}); give another label")
            if episode.task.prompt != self._traces.stored(clean(task.prompt)):
                raise ConfigurationError(f"run {self._run!r} has another task {task.id!r}; give another label")
            found[task.id] = Kept.of(episode, stored=self._traces.stored)
            self._written[episode.id] = len(episode.steps)
        return found

    def blank(self, task: Task) -> Kept:
        """Return what is known of a task that was not recorded yet: nothing.

        Under a label its episode has one name, whoever begins it: two processes at once record one debate, not two.
        """
        if not self._run:
            return Kept()
        name = "\n".join((self._run, self._env, task.id[:200]))
        return Kept(episode=uuid.uuid5(uuid.NAMESPACE_OID, name.encode("utf-8", "replace").decode()).hex)

    def begin(self, episode: str, task: Task) -> None:
        """Write that a debate begins, unless that is written already."""
        if episode not in self._written:
            self._written[episode] = 0
            self._traces.start_episode(episode, env=self._env, task=task, run=self._run, settings=self._settings)
            self._traces.assign_roles(episode, task=task.prompt, roles=self._roles)

    def record(self, episode: str, asked: Asked, reply: Answered) -> str:
        """Write down one call and return its key; one that failed is told with the end."""
        if reply.error:
            return ""
        index = self._written[episode]
        self._written[episode] = index + 1
        step = Step(
            key=uuid.uuid4().hex,
            index=index,
            attempt=asked.round,
            node=asked.node,
            messages=asked.messages,
            completion=reply.text,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            seconds=reply.seconds,
            model=reply.model,
            adapter=reply.adapter,
            told=reply.told,
        )
        self._traces.record_step(episode, step)
        return step.key

    def end(self, debate: Debate) -> None:
        """Write how a debate ended."""
        self._traces.finish_episode(debate.episode, reward=debate.reward, **ending(debate))


def ending(debate: Debate) -> dict[str, Any]:
    """Say how a debate ended, as it is recorded."""
    stopped: StopReason = "error" if debate.failed else "ended"
    return {
        "stopped": stopped,
        "attempts": debate.rounds,
        "answer": debate.answer,
        "error": failures((*debate.turns, *debate.summaries)),
    }


def failures(calls: Iterable[Said]) -> str:
    """List the calls that failed, a line for each."""
    failed = sorted((each for each in calls if each.error), key=lambda each: (each.round, each.node))
    return "\n".join(f"{each.node} in round {each.round}: {each.error}" for each in failed)


def read_debate(episode: Episode, *, rules: Rules | None = None) -> Debate:
    """Read a recorded debate back.

    Args:
        episode: One that `run_debates` or a debate graph recorded, to its end.
        rules: How it was played; None takes it from the episode, which names its prompts.

    Raises:
        ConfigurationError: It is no debate, or did not end, or its prompts are your own: then give `rules`.

    Example:
        >>> debates = [read_debate(episode) for episode in traces.episodes(run="label")]  # doctest: +SKIP

    """
    told = episode.settings.get("debate")
    if not isinstance(told, Mapping) or episode.stopped not in ("ended", "error"):
        raise ConfigurationError(f"episode {episode.id} is no debate that ended; choose others by their run")
    bound = rules or _rules_of(told)
    kept = Kept.of(episode)
    kept.ended = True
    played = replay(bound, episode.task.prompt, kept)
    # As recorded: a graph puts what was said before the question in front of each prompt.
    turns = tuple(_with_prompt(turn, kept) for turn in played.turns)
    summaries = tuple(_with_prompt(summary, kept) for summary in played.summaries)
    return as_debate(replace(played, turns=turns, summaries=summaries), episode.task, episode.settings, kept)


def _with_prompt(said: _Call, kept: Kept) -> _Call:
    step = kept.replies.get((said.node, said.round))
    return said if step is None else replace(said, messages=step.messages)


def replay(rules: Rules, question: str, kept: Kept) -> Played:
    """Play a debate that ended once more, out of what was recorded."""
    story = play(rules, question)
    asked = next(story)
    while True:
        replies = [kept.answer_to(each) or Answered(error="the call was not recorded") for each in asked]
        try:
            asked = story.send(replies)
        except StopIteration as stop:
            played: Played = stop.value
            return played


def as_debate(played: Played, task: Task, settings: Mapping[str, Any], kept: Kept) -> Debate:
    """Put a debate together."""
    voted = played.vote.answer or ""
    return Debate(
        task=task,
        turns=played.turns,
        summaries=played.summaries,
        vote=played.vote,
        stopped_early=played.stopped_early,
        chosen=kept.answer if kept.ended and kept.answer != voted else None,
        reward=kept.reward,
        settings=settings,
        episode=kept.episode,
    )


def _rules_of(told: Mapping[str, Any]) -> Rules:
    names: Sequence[str] = ("rounds", "summarise", "mode", "stop_when_unanimous", "most_solutions", "seed")
    settings = DebateSettings(**{name: told[name] for name in names})
    return Rules.of(settings, str(told["pack"]).partition("@")[0], int(told["agents"]))


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in (*new, *old) if old.get(name) != new.get(name)]
    return f"{names[0]}: {old.get(names[0])!r}, now {new.get(names[0])!r}" if names else "other settings"
