"""Whole question sets: each phase of all debates goes to the models at once, as few large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cmat_graph.debate.asking import Answered, Asked, ask_all, clean, refuse_unaskable
from cmat_graph.debate.playing import Play, Played, play
from cmat_graph.debate.prompts import PromptPack
from cmat_graph.debate.recording import Kept, Tape, as_debate
from cmat_graph.debate.records import Debate
from cmat_graph.debate.rounds import DebateSettings, Rules
from cmat_graph.debate.seats import Model, Models, Seats
from cmat_graph.errors import ConfigurationError, EngineError, TraceStoreError
from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Env, Task

Report = Callable[[Debate], None]
"""Called with each debate that has ended, in the order of the tasks."""


@dataclass(slots=True, kw_only=True)
class _Game:
    """One question under way."""

    task: Task
    story: Play
    kept: Kept
    asked: list[Asked] = field(default_factory=list)
    replies: list[Answered | None] = field(default_factory=list)
    played: Played | None = None

    def go_on(self, replies: list[Answered] | None) -> None:
        """Tell it the answers; then it knows what is asked next, or is over."""
        try:
            self.asked = next(self.story) if replies is None else self.story.send(replies)
        except StopIteration as stop:
            self.asked, self.replies, self.played = [], [], stop.value
            return
        self.replies = [self.kept.answer_to(each) for each in self.asked]


def run_debates(
    tasks: Iterable[Task],
    *,
    generators: Models,
    critics: Models | None = None,
    summariser: Model | None = None,
    agents: int | None = None,
    pack: str | PromptPack = "arithmetic",
    settings: DebateSettings = DebateSettings(),
    env: Env | None = None,
    traces: TraceStore | None = None,
    run: str = "",
    score: bool = False,
    report: Report | None = None,
    batch: int = 100,
    concurrency: int = 16,
) -> list[Debate]:
    """Debate about many questions; results come in the order of the tasks.

    A run that is recorded goes on where an earlier one of the same label stopped: no call that was recorded is made
    again. With seeds, local agents in float32 say the same whatever the slices are.

    Args:
        tasks: The questions.
        generators: One model for each agent, or one that plays all.
        critics: The same; None lets the generators speak again.
        summariser: Sums the others' solutions up; None takes the bare base of the first generator where that is a
            `TinyAgent`, and the generator itself where one model plays all.
        agents: How many there are, where one model plays all; by default 3.
        pack: The prompts, or their name.
        settings: How a debate goes.
        env: Where the tasks are from; scores answers.
        traces: Where to record; None records nothing.
        run: Label of the run in the traces; one without a label is not gone on with.
        score: Let the environment's gold say what the consensus is worth. For evaluations: never for training.
        report: Called with each debate, for progress bars.
        batch: Questions in a slice: what is played, recorded and written before the next begins.
        concurrency: Calls in flight of each model that is not local.

    Raises:
        ConfigurationError: Arguments that cannot work together, or the run was recorded with others.
        TraceStoreError: The recording cannot be written.

    Example:
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> sure = ScriptedChatModel(replies=["2 + 2 = 4. Answer: 4"])
        >>> [debate] = run_debates([Task(id="1", prompt="What is 2 + 2?")], generators=sure)
        >>> debate.answer, debate.vote.share, debate.calls
        ('4', 1.0, 9)

    """
    questions = list(tasks)
    if batch < 1:
        raise ConfigurationError(f"a slice has at least one question, not {batch}")
    if len({task.id[:200] for task in questions}) < len(questions):
        raise ConfigurationError("two tasks share an id, or its first 200 characters; give each its own")
    for task in questions:
        refuse_unaskable(task.prompt, task.id)
    if score and env is None:
        raise ConfigurationError("to score needs an environment: give env=")
    seats = Seats.of(
        generators, critics, summariser, agents=agents, summarise=settings.summarise and settings.rounds > 1
    )
    rules = Rules.of(settings, pack, len(seats.generators))
    roles = seats.told(settings.rounds)
    told = {"debate": rules.told() | {"models": roles}}
    place = env.name if env is not None else ""
    tape = Tape(traces, env=place, run=run, settings=told, roles=roles) if traces is not None else None
    kept = tape.kept(questions) if tape is not None and run else {}
    lost = traces.dropped if traces is not None else 0
    debates: list[Debate] = []
    for start in range(0, len(questions), batch):
        games = [
            _open(rules, task, kept.get(task.id) or _blank(tape, task)) for task in questions[start : start + batch]
        ]
        _play(games, seats, tape, concurrency)
        ended = [_end(game, told, tape, env if score else None) for game in games]
        if traces is not None:
            _write(traces, lost)
        for debate in ended:
            if report is not None:
                report(debate)
        debates += ended
    return debates


def refuse_failed(debates: Sequence[Debate], what: str) -> None:
    """Refuse to measure what nobody could say anything to: a model that is away is not wrong.

    Raises:
        EngineError: Every debate failed.

    """
    if debates and all(debate.failed for debate in debates):
        why = next((turn.error for debate in debates for turn in debate.turns if turn.error), "no reply")
        raise EngineError(f"every debate of {what!r} failed ({why}); mend that, the same command goes on")


def _open(rules: Rules, task: Task, kept: Kept) -> _Game:
    game = _Game(task=task, story=play(rules, clean(task.prompt)), kept=kept)
    game.go_on(None)
    return game


def _blank(tape: Tape | None, task: Task) -> Kept:
    return tape.blank(task) if tape is not None else Kept()


def _play(games: Sequence[_Game], seats: Seats, tape: Tape | None, concurrency: int) -> None:
    """Play a slice to its end, one phase of all its debates after another."""
    while going := [game for game in games if game.played is None]:
        open_ = [(game, i) for game in going for i, reply in enumerate(game.replies) if reply is None]
        if tape is not None:
            for game, _ in open_:
                tape.begin(game.kept.episode, game.task)
        answers = ask_all([game.asked[i] for game, i in open_], seats, concurrency=concurrency)
        for (game, i), reply in zip(open_, answers, strict=True):
            key = tape.record(game.kept.episode, game.asked[i], reply) if tape is not None else ""
            game.replies[i] = replace(reply, key=key)
        for game in going:
            game.go_on([reply for reply in game.replies if reply is not None])


def _end(game: _Game, told: dict[str, Any], tape: Tape | None, env: Env | None) -> Debate:
    assert game.played is not None
    debate = as_debate(game.played, game.task, told, game.kept)
    unscored = env is not None and debate.reward is None
    if env is not None and unscored:
        debate = replace(debate, reward=score_debate(debate, env))
    if tape is None:
        return replace(debate, episode="")
    if unscored or not game.kept.ended:
        tape.end(debate)
    return debate


def score_debate(debate: Debate, env: Env) -> float:
    """Return what an environment's gold says to the consensus; one that could not be read is wrong."""
    if not debate.answer:
        return 0.0
    session = env.open(debate.task)
    try:
        session.step(debate.reply or debate.answer)
        return session.score()
    finally:
        session.close()


def _write(traces: TraceStore, lost: int) -> None:
    traces.flush()
    if traces.dropped > lost:
        why = getattr(traces, "why_dropped", "") or "the database did not take them"
        raise TraceStoreError(
            f"{traces.dropped - lost} rows of the debates were not written: {why}; free the database, and run again"
        )
