"""Preference pairs of recorded debates, for DPO, and judged replies, for KTO.

A generator's pairs are replies of round 1 to one prompt; a critic's are replies of the last round under that critic's
own chat, so under one summary. The better one hits the consensus, the worse one misses it, and at least one of the two
is the agent's own, the other a peer's. A repair also sets an agent's last reply over its own first one. Where a person
judged replies at the vote, their word stands in place of the consensus.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cmat_graph.errors import ConfigurationError
from cmat_graph.splits import VALIDATION_SHARE
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import MANIFEST, Contrast, Dataset, Part
from cmat_graph.tuning.debates.folders import REPORT, DebateSets, making, new_tally, refuse_empty, write_report
from cmat_graph.tuning.debates.piles import PARTS, Piles, Waiting, write_set
from cmat_graph.tuning.debates.reading import Reader
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.transcript import Reply, Transcript
from cmat_graph.types import Task

JudgedBy = Literal["all", "vote", "human"]
FILES = ("pairs", "judged")
_FIX = "take more questions: pairs need agents that disagree"


def preference_sets(
    traces: TraceStore,
    folder: str | Path,
    *,
    run: str | None = None,
    judged_by: JudgedBy = "all",
    repairs: bool = True,
    settings: DebateSetSettings = DebateSetSettings(),
    validation_share: float = VALIDATION_SHARE,
    held_out: Collection[Task] = (),
) -> DebateSets:
    """Make a set of preferences for each agent, in `folder/generator-0` and so on.

    Args:
        traces: Where the debates are recorded.
        folder: Where the datasets go; datasets of debates that were there are replaced.
        run: Label of the run; None takes every recorded debate.
        judged_by: `human` takes the debates alone in which a person judged, `vote` the others.
        repairs: Set an agent's last reply over its own first one where it repaired itself.
        settings: The rules; of them `minimum_agreement`, `kind` and `seed` count here.
        validation_share: Share of the questions whose rows are kept to choose by; 0 trains on all.
        held_out: Tasks that the agents are measured on.

    Raises:
        LeakError: A held-out task was debated for training.
        EmptyHarvestError: Agents that disagree are nowhere found.

    """
    reader = Reader(traces, run, settings, held_out)
    rules = _rules(settings, run, validation_share, judged_by, repairs)
    with making(folder, settings, known=REPORT) as (place, piles):
        agents: dict[str, Any] = {}
        for node in _collect(reader, piles, settings, judged_by, repairs):
            rows = _rows(piles, [node], validation_share)
            agents[node] = _about(rows)
            if agents[node]["made"]:
                (place / node).mkdir()
                write_set(place / node, piles, rows, rules, new_tally(reader), node)
        if not any(about["made"] for about in agents.values()):
            refuse_empty(reader, run, "preferences", fix=_FIX)
        write_report(place, {"run": run, "settings": rules, **reader.told(), "agents": agents})
    return DebateSets(folder)


def preference_set(
    traces: TraceStore,
    folder: str | Path,
    *,
    run: str | None = None,
    node: str = "single",
    judged_by: JudgedBy = "all",
    repairs: bool = True,
    settings: DebateSetSettings = DebateSetSettings(),
    validation_share: float = VALIDATION_SHARE,
    held_out: Collection[Task] = (),
) -> Dataset:
    """Join the preferences of all agents to one set for one model; equal rows stand there once.

    Args:
        traces: Where the debates are recorded.
        folder: Where the dataset goes; one that was there is replaced.
        run: Label of the run; None takes every recorded debate.
        node: The seat that the model is trained for.
        judged_by: `human` takes the debates alone in which a person judged, `vote` the others.
        repairs: Set an agent's last reply over its own first one where it repaired itself.
        settings: The rules; of them `minimum_agreement`, `kind` and `seed` count here.
        validation_share: Share of the questions whose rows are kept to choose by; 0 trains on all.
        held_out: Tasks that the model is measured on.

    Raises:
        LeakError: A held-out task was debated for training.
        EmptyHarvestError: Agents that disagree are nowhere found.

    """
    reader = Reader(traces, run, settings, held_out)
    rules = _rules(settings, run, validation_share, judged_by, repairs)
    with making(folder, settings, known=MANIFEST) as (place, piles):
        rows = _rows(piles, _collect(reader, piles, settings, judged_by, repairs), validation_share)
        if not _about(rows)["made"]:
            refuse_empty(reader, run, "preferences", fix=_FIX)
        write_set(place, piles, rows, rules, new_tally(reader), node)
    return Dataset(folder)


def _collect(
    reader: Reader, piles: Piles, settings: DebateSetSettings, judged_by: JudgedBy, repairs: bool
) -> list[str]:
    """Sort the pairs and judged replies by seat; return the seats."""
    seats: set[tuple[str, int]] = set()
    for debate in reader:
        if judged_by != "all" and debate.judged_by_person != (judged_by == "human"):
            continue
        contrast: Contrast = "human" if debate.judged_by_person else "minority"
        dice = random.Random(f"{settings.seed}:{debate.episode.task.id}")
        for number in sorted({1, debate.rounds}):
            replies = [found for (_, when), found in sorted(debate.replies.items()) if when == number]
            for reply in replies:
                if number > 1 and not reply.node.startswith("critic"):
                    continue
                seats.add((reply.node.partition("-")[0], reply.agent))
                good = _good(debate, reply)
                if good is None:
                    continue
                piles.judge(reply.node, debate, reply, good=good)
                peers = [other for other in replies if _good(debate, other) is (not good)]
                if number == 1:  # there only the prompts can differ: agents that were told who they are
                    peers = [other for other in peers if other.prompt == reply.prompt]
                if peers:
                    peer = dice.choice(peers)
                    chosen, rejected = (reply, peer) if good else (peer, reply)
                    piles.prefer(reply.node, debate, reply.prompt, chosen, rejected, contrast)
        for first, last in _repaired(debate) if repairs else ():
            for seat in (first, last) if last.node != first.node else (first,):
                piles.prefer(seat.node, debate, seat.prompt, last, first, "repaired")
    order = {"generator": 0, "critic": 1}
    return [f"{role}-{agent}" for role, agent in sorted(seats, key=lambda seat: (order[seat[0]], seat[1]))]


def _repaired(debate: Transcript) -> Iterator[tuple[Reply, Reply]]:
    for agent in range(debate.agents):
        first, last = debate.first(agent), debate.last(agent)
        if first and last and first is not last and _good(debate, first) is False and _good(debate, last):
            yield first, last


def _good(debate: Transcript, reply: Reply) -> bool | None:
    """Tell whether a reply is right: a person's word on it, else whether it gives the answer that was chosen."""
    return debate.hits(reply) if reply.human is None else reply.human


def _rows(piles: Piles, nodes: list[str], share: float) -> dict[tuple[str, Part], list[Waiting]]:
    rows: dict[tuple[str, Part], list[Waiting]] = {}
    for file in FILES:
        for part in PARTS:
            found = {(row.task_name, row.digest): row for node in nodes for row in piles.of(node, file, part, share)}
            rows[file, part] = sorted(found.values())
    return rows


def _about(rows: dict[tuple[str, Part], list[Waiting]]) -> dict[str, Any]:
    pairs, judged = len(rows["pairs", "train"]), len(rows["judged", "train"])
    told = {"made": bool(pairs), "pairs": pairs, "judged": judged, "validation": len(rows["pairs", "validation"])}
    return told if pairs else {**told, "why": "no pair: the agent is kept as it was"}


def _rules(
    settings: DebateSetSettings, run: str | None, share: float, judged_by: JudgedBy, repairs: bool
) -> dict[str, Any]:
    if judged_by not in ("all", "vote", "human"):
        raise ConfigurationError(f"preferences are judged by 'all', 'vote' or 'human', not {judged_by!r}")
    return {
        "rule": "preferences",
        **asdict(settings),
        "run": run,
        "validation_share": share,
        "judged_by": judged_by,
        "repairs": repairs,
    }
