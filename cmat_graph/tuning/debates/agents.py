"""Each agent's own data of recorded debates (Multiagent Finetuning, section 2.3): D^G, and D^C of C- and C+.

D_n^G  = (x, y_1,n)          where y_1,n hits the consensus: a generator's own first answers
D_n^C- = (x, y_1,n .. y_M,n) where y_1,n misses it and y_M,n hits it: the agent repaired itself
D_n^C+ = (x, y_1,n .. y_M,n) where both hit it: the agent stayed right

No agent ever sees a reply of another one but as it was shown in the debate, and a trajectory whose last answer misses
the consensus is never used.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmat_graph.splits import VALIDATION_SHARE
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.dataset import Part
from cmat_graph.tuning.debates.folders import REPORT, DebateSets, making, new_tally, refuse_empty, write_report
from cmat_graph.tuning.debates.mixing import Mixed, mix
from cmat_graph.tuning.debates.piles import PARTS, Piles, Waiting, write_set
from cmat_graph.tuning.debates.reading import Reader
from cmat_graph.tuning.debates.settings import DebateSetSettings
from cmat_graph.tuning.debates.transcript import Transcript
from cmat_graph.types import Task

GENERATED, MINUS, PLUS = "G", "C-", "C+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one seat gets of one part."""

    rows: list[Waiting]
    found: dict[str, int]
    """How many rows there were, by rule."""
    mixed: Mixed[Waiting] | None = None
    """Of a critic: how its rows were drawn."""


def debate_sets(
    traces: TraceStore,
    folder: str | Path,
    *,
    run: str | None = None,
    settings: DebateSetSettings = DebateSetSettings(),
    validation_share: float = VALIDATION_SHARE,
    held_out: Collection[Task] = (),
) -> DebateSets:
    """Make one dataset an agent of a run of recorded debates, in `folder/generator-0` and so on.

    The same debates and settings make the same bytes, whatever the order in which they were recorded. Reading is
    streamed: memory keeps some bytes a row.

    Args:
        traces: Where the debates are recorded.
        folder: Where the datasets go. It is written aside and renamed; datasets of debates that were there are
            replaced.
        run: Label of the run; None takes every recorded debate.
        settings: The rules.
        validation_share: Share of the questions whose rows are kept to choose by; 0 trains on all.
        held_out: Tasks that the agents are measured on.

    Returns:
        The datasets by seat, with a report. A seat without a row has none.

    Raises:
        LeakError: A held-out task was debated for training.
        EmptyHarvestError: No agent has a row; the message counts why.
        ConfigurationError: The folder holds something else.
        OSError: The disk is full.

    Example:
        >>> from cmat_graph.traces.sql import SQLTraceStore
        >>> debate_sets(SQLTraceStore("sqlite://"), "sets/", run="iteration-0")
        Traceback (most recent call last):
        ...
        cmat_graph.errors.EmptyHarvestError: no debates in run 'iteration-0': nothing to make the agents' sets of; ...

    """
    reader = Reader(traces, run, settings, held_out)
    with making(folder, settings, known=REPORT) as (place, piles):
        seats = collect(reader, piles)
        agents: dict[str, Any] = {}
        for node in seats:
            parts = {part: draw(piles, node, part, settings, validation_share) for part in PARTS}
            agents[node] = _about(parts)
            if not parts["train"].rows:
                continue
            tally = new_tally(reader)
            for rule, number in parts["train"].found.items():
                tally.took("collect", f"{rule} rows", number)
            tally.left("mix", "rows", "not drawn", sum(parts["train"].found.values()) - len(parts["train"].rows))
            (place / node).mkdir()
            rows = {("sft", part): share.rows for part, share in parts.items()}
            write_set(place / node, piles, rows, _rules(settings, run, validation_share), tally, node)
        if not any(about["made"] for about in agents.values()):
            refuse_empty(reader, run, "the agents' sets")
        told = {"run": run, "settings": _rules(settings, run, validation_share), **reader.told(), "agents": agents}
        write_report(place, told)
    return DebateSets(folder)


def collect(reader: Iterable[Transcript], piles: Piles) -> list[str]:
    """Sort the replies of debates by the rules; return all seats that were met."""
    agents = critics = 0
    for debate in reader:
        agents = max(agents, debate.agents)
        for agent in range(debate.agents):
            first, last = debate.first(agent), debate.last(agent)
            first_hits = debate.hits(first)
            if first is not None and first_hits:
                piles.learn(f"generator-{agent}", GENERATED, debate, first.prompt, first.message)
            if last is None or debate.rounds < 2 or not last.node.startswith("critic"):
                continue  # with one round, or where the generators speak again, there is no critic to teach
            critics = max(critics, debate.agents)
            if first is not None and debate.hits(last):  # without a first answer it is neither a repair nor a stay
                rule, kind = (PLUS, "turn") if first_hits else (MINUS, "repair")
                piles.learn(last.node, rule, debate, last.prompt, last.message, kind=kind)  # type: ignore[arg-type]
    return [f"generator-{agent}" for agent in range(agents)] + [f"critic-{agent}" for agent in range(critics)]


def draw(piles: Piles, node: str, part: Part, settings: DebateSetSettings, share: float) -> Share:
    """Choose a seat's rows: all of a generator's, a mix of a critic's."""
    if node.startswith("generator"):
        rows = piles.of(node, GENERATED, part, share)
        return Share(rows=rows, found={GENERATED: len(rows)})
    minus, plus = (piles.of(node, rule, part, share) for rule in (MINUS, PLUS))
    mixed = mix(minus, plus, settings, random.Random(f"{settings.seed}:{node}:{part}"))
    found = {MINUS: len(minus), PLUS: len(plus)}
    return Share(rows=sorted([*mixed.minus, *mixed.plus]), found=found, mixed=mixed)


def _about(parts: dict[Part, Share]) -> dict[str, Any]:
    """Report what became of one seat."""
    train = parts["train"]
    told: dict[str, Any] = {
        "made": bool(train.rows),
        "examples": len(train.rows),
        "validation": len(parts["validation"].rows),
        "found": train.found,
    }
    if train.mixed is not None:
        share = train.mixed.share
        told["drawn"] = {MINUS: len(train.mixed.minus), PLUS: len(train.mixed.plus)}
        told["share"] = None if share is None else round(share, 6)
        told["fallback"] = train.mixed.fallback
    if not train.rows:
        told["why"] = "no row: the agent is kept as it was"
    return told


def _rules(settings: DebateSetSettings, run: str | None, share: float) -> dict[str, Any]:
    return {**asdict(settings), "run": run, "validation_share": share}
