"""Sets for one model alone, of the same recorded debates: what a society is compared with.

union_set    the rows of all agents, for one model: the control with equal data
pooled_set   all replies that hit the consensus, whoever gave them: Majority FT, and single-agent finetuning
student_set  the question, and the debate's winning answer at once: nine calls distilled into one
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from cmat_graph.errors import ConfigurationError
from cmat_graph.splits import VALIDATION_SHARE
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import MANIFEST, Dataset
from cmat_graph.tuning.debates.agents import collect, draw
from cmat_graph.tuning.debates.folders import POOL, asked, make_set, making, new_tally, refuse_empty, rules_of
from cmat_graph.tuning.debates.piles import PARTS, Piles, write_set
from cmat_graph.tuning.debates.reading import Reader
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.transcript import Reply, Transcript
from cmat_graph.types import Message, Task

Rounds = Literal["first", "last", "both"]


def union_set(
    traces: TraceStore,
    folder: str | Path,
    *,
    run: str | None = None,
    node: str = "union",
    settings: DebateSetSettings = DebateSetSettings(),
    validation_share: float = VALIDATION_SHARE,
    held_out: Collection[Task] = (),
) -> Dataset:
    """Join the sets of all agents to one: exactly the rows that `debate_sets` draws with the same settings.

    Args:
        traces: Where the debates are recorded.
        folder: Where the dataset goes; one that was there is replaced.
        run: Label of the run; None takes every recorded debate.
        node: The seat that the model is trained for.
        settings: The rules.
        validation_share: Share of the questions whose rows are kept to choose by; 0 trains on all.
        held_out: Tasks that the model is measured on.

    Raises:
        LeakError: A held-out task was debated for training.
        EmptyHarvestError: No agent has a row.

    """
    reader = Reader(traces, run, settings, held_out)
    with making(folder, settings, known=MANIFEST) as (place, piles):
        seats = collect(reader, piles)
        rows = {
            ("sft", part): sorted(
                row for seat in seats for row in draw(piles, seat, part, settings, validation_share).rows
            )
            for part in PARTS
        }
        if not rows["sft", "train"]:
            refuse_empty(reader, run, "the union set")
        rules = rules_of("union", settings, run, validation_share)
        write_set(place, piles, rows, rules, new_tally(reader), node)
    return Dataset(folder)


def pooled_set(
    traces: TraceStore,
    folder: str | Path,
    *,
    run: str | None = None,
    node: str = "single",
    rounds: Rounds = "first",
    agents: Collection[int] | None = None,
    settings: DebateSetSettings = DebateSetSettings(),
    validation_share: float = VALIDATION_SHARE,
    held_out: Collection[Task] = (),
) -> Dataset:
    """Pool the agents' replies that hit the consensus, for one model.

    Of debates of one round (plain votes) that is the paper's Majority FT; of whole debates it is single-agent
    finetuning, whose round the paper leaves open.

    Args:
        traces: Where the debates are recorded.
        folder: Where the dataset goes; one that was there is replaced.
        run: Label of the run; None takes every recorded debate.
        node: The seat that the model is trained for.
        rounds: Which replies: of the `first` round, of the `last` one under its chat, or of `both`.
        agents: Whose replies, by number; None takes everybody's.
        settings: The rules.
        validation_share: Share of the questions whose rows are kept to choose by; 0 trains on all.
        held_out: Tasks that the model is measured on.

    Raises:
        LeakError: A held-out task was debated for training.
        EmptyHarvestError: No reply hits a consensus.

    """
    if rounds not in ("first", "last", "both"):
        raise ConfigurationError(f"no rounds {rounds!r}; give first, last or both")
    reader = Reader(traces, run, settings, held_out)

    def gather(piles: Piles) -> None:
        for debate in reader:
            wanted = {"first": {1}, "last": {debate.rounds}, "both": {1, debate.rounds}}[rounds]
            for reply in _replies(debate):
                if reply.round in wanted and (agents is None or reply.agent in agents) and debate.hits(reply):
                    piles.learn(node, POOL, debate, reply.prompt, reply.message)

    rules = {**rules_of("pooled", settings, run, validation_share), "rounds": rounds}
    if agents is not None:
        rules["agents"] = sorted(agents)
    return make_set(folder, reader, gather, rules, settings, run, node, validation_share)


def student_set(
    traces: TraceStore,
    folder: str | Path,
    *,
    run: str | None = None,
    node: str = "student",
    every_winner: bool = False,
    prompt: Callable[[Task], list[Message]] | None = None,
    settings: DebateSetSettings = DebateSetSettings(),
    validation_share: float = VALIDATION_SHARE,
    held_out: Collection[Task] = (),
) -> Dataset:
    """Pair each question with the debate's winning last reply: what one call shall answer.

    Args:
        traces: Where the debates are recorded.
        folder: Where the dataset goes; one that was there is replaced.
        run: Label of the run; None takes every recorded debate.
        node: The seat that the model is trained for.
        every_winner: Learn the replies of all winners, which keeps more of the society's diversity; else of one, drawn
            by the seed.
        prompt: How the student is asked; None asks as a generator was asked in round 1.
        settings: The rules.
        validation_share: Share of the questions whose rows are kept to choose by; 0 trains on all.
        held_out: Tasks that the model is measured on.

    Raises:
        LeakError: A held-out task was debated for training.
        EmptyHarvestError: No debate has a winner.

    """
    reader = Reader(traces, run, settings, held_out)

    def gather(piles: Piles) -> None:
        for debate in reader:
            winners = [reply for agent in range(debate.agents) if debate.hits(reply := debate.last(agent)) and reply]
            shown = asked(debate, prompt)
            if not every_winner and winners:
                dice = random.Random(f"{settings.seed}:{debate.episode.task.id}")
                winners = [dice.choice(winners)]
            for winner in winners if shown else ():
                piles.learn(node, POOL, debate, shown, winner.message)

    rules = {**rules_of("student", settings, run, validation_share), "every_winner": every_winner}
    return make_set(folder, reader, gather, rules, settings, run, node, validation_share)


def _replies(debate: Transcript) -> list[Reply]:
    return [reply for _, reply in sorted(debate.replies.items(), key=lambda found: found[0])]
