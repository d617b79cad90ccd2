"""Replies that are right by gold, with and without a hint (STaR): the one set here that labels are needed for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cmat_graph.errors import ConfigurationError
from cmat_graph.splits import VALIDATION_SHARE
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import Dataset, WeightedMessage
from cmat_graph.tuning.debates.folders import POOL, asked, make_set, rules_of
from cmat_graph.tuning.debates.piles import Piles
from cmat_graph.tuning.debates.reading import Reader
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.transcript import Reply, Transcript
from cmat_graph.types import Task

Scorer = Callable[[Task, str], float]
"""Scores a reply to a task by gold: 1 where it is right."""


def star_set(
    traces: TraceStore,
    folder: str | Path,
    *,
    run: str | None = None,
    hinted: str = "",
    scorer: Scorer | None = None,
    node: str = "star",
    settings: DebateSetSettings = DebateSetSettings(),
    validation_share: float = VALIDATION_SHARE,
    held_out: Collection[Task] = (),
) -> Dataset:
    """Keep the first replies that are right by gold (STaR), for one model.

    Where none to a question is right, those that were right with the true answer as a hint stand in, under the plain
    question: the hint is never part of what is trained on.

    Args:
        traces: Where the debates are recorded; rounds after the first are not looked at.
        folder: Where the dataset goes; one that was there is replaced.
        run: Label of the run without hints.
        hinted: Label of the run with hints; empty for none.
        scorer: Scores a reply by gold; None goes by the recorded rewards: right is what gives the answer of an episode
            with full reward.
        node: The seat that the model is trained for.
        settings: The rules.
        validation_share: Share of the questions whose rows are kept to choose by; 0 trains on all.
        held_out: Tasks that the model is measured on.

    Raises:
        LeakError: A held-out task was asked for training.
        EmptyHarvestError: No reply is right, or no gold is known.

    """
    if hinted and hinted == run:
        raise ConfigurationError("the run with hints is the run without; record them under two labels")
    reader = Reader(traces, run, settings, held_out, voted=False)
    helped = Reader(traces, hinted, settings, held_out, voted=False)

    def gather(piles: Piles) -> None:
        missed: dict[str, list[WeightedMessage]] = {}
        for debate in reader:
            right = list(_right(debate, scorer))
            for reply in right:
                piles.learn(node, POOL, debate, reply.prompt, reply.message)
            if not right and hinted:
                missed[debate.episode.task.id] = asked(debate, None)
        for debate in helped if hinted else ():
            if plain := missed.get(debate.episode.task.id):
                for reply in _right(debate, scorer):
                    piles.learn(node, POOL, debate, plain, reply.message, kind="repair")

    rules = {**rules_of("star", settings, run, validation_share), "hinted": hinted}
    fix = "play the questions with their scores (score=True), or give a scorer"
    return make_set(folder, reader, gather, rules, settings, run, node, validation_share, fix=fix)


def _right(debate: Transcript, scorer: Scorer | None) -> Iterator[Reply]:
    for agent in range(debate.agents):
        if (reply := debate.first(agent)) is None:
            continue
        if scorer is not None:
            if scorer(debate.episode.task, reply.message["content"]) >= 1.0:
                yield reply
        elif debate.episode.solved and debate.hits(reply):
            yield reply
