"""Which debates are measured: the consensus of all of them, and the replies of some, always the same for one seed."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass

from cmat_graph.errors import ConfigurationError
from cmat_graph.traces.base import TraceStore
from cmat_graph.tuning.debates.transcript import Reply, Transcript, is_debate, read_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One debate whose replies are looked at."""

    question: str
    first: dict[int, Reply]
    """By agent; who failed is not there."""
    last: dict[int, Reply]
    winners: tuple[int, ...]
    """The agents whose last answer is the consensus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A run of debates."""

    agents: int
    agreements: list[float]
    """Of every question."""
    hits: list[list[bool]]
    """Of every question, for each agent: whether its last answer is the consensus."""
    asked: list[Asked]
    """Of those that were drawn."""


def read_sample(
    traces: TraceStore, run: str | None, *, limit: int | None = None, seed: int = 0, kind: str = ""
) -> Sample:
    """Read a run of debates; which questions are drawn depends on their ids and the seed alone.

    So the same questions are measured in each iteration. Memory keeps those that are drawn.

    Args:
        traces: Where the debates are recorded.
        run: Label of the run; None takes every recorded debate.
        limit: Draw so many questions; None takes all.
        seed: Draws them.
        kind: How answers are compared; empty takes what was recorded.

    Raises:
        ConfigurationError: The run holds no debate that ended.

    """
    if limit is not None and limit < 1:
        raise ConfigurationError(f"at least one question is measured, not {limit}")
    agents, agreements, hits = 0, [], []
    drawn: list[tuple[int, str, Asked]] = []
    for episode in traces.episodes(run=run):
        how = read_kind(episode, kind) if is_debate(episode) else None
        if how is None or episode.stopped not in ("ended", "error"):
            continue
        debate = Transcript(episode, how)
        agents = max(agents, debate.agents)
        agreements.append(debate.agreement)
        hits.append([debate.hits(debate.last(agent)) for agent in range(debate.agents)])
        number = int.from_bytes(hashlib.sha256(f"{seed}:{episode.task.id}".encode()).digest()[:8], "big")
        item = (-number, episode.id, _look(debate, hits[-1]))
        if limit is None or len(drawn) < limit:
            heapq.heappush(drawn, item)
        elif item > drawn[0]:
            heapq.heapreplace(drawn, item)
    if not agreements:
        raise ConfigurationError(
            f"no debates that ended in {'any run' if run is None else f'run {run!r}'}; record some with: "
            "cmat-graph debate --env questions --traces URL --run LABEL"
        )
    chosen = [asked for _, _, asked in sorted(drawn, key=lambda item: (-item[0], item[1]))]
    return Sample(agents=agents, agreements=agreements, hits=hits, asked=chosen)


def _look(debate: Transcript, hits: list[bool]) -> Asked:
    agents = range(debate.agents)
    return Asked(
        question=debate.episode.task.prompt,
        first={agent: reply for agent in agents if (reply := debate.first(agent))},
        last={agent: reply for agent in agents if (reply := debate.last(agent))},
        winners=tuple(agent for agent in agents if hits[agent]),
    )
