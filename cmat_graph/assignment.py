"""Share tasks between several assistants: each one's record is its weight, a maximum flow hands every task out once.

Playing and recording are left to `rollout`; an agent's record is what the traces hold under its own run label.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
from networkx.algorithms.flow import dinitz  # type: ignore[import-untyped]

from cmat_graph.errors import ConfigurationError
from cmat_graph.rollout import Graph, Outcome, Report, run_episodes
from cmat_graph.traces.base import TraceStore
from cmat_graph.types import Env, Task

FLOOR = 0.1
"""The least weight: an agent that failed everything still gets tasks, or it could never recover."""
Able = Callable[[Task], bool]
"""Says whether an agent can play a task."""

_Group = tuple[str, ...]
"""The agents that can play a task; tasks with the same ones are one node of the flow."""
_SOURCE, _SINK = 0, 1  # numbers, since agents' nodes are strings and groups' nodes are tuples

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """An agent's own record."""

    completed: int = 0
    """Episodes with the full reward."""
    total: int = 0
    """Finished episodes."""

    @property
    def weight(self) -> float:
        """The share of completed episodes, in `FLOOR`..1; 1 without a history."""
        return min(1.0, max(FLOOR, self.completed / self.total)) if self.total else 1.0

    def extended(self, rewards: Iterable[float]) -> History:
        """Return the record with the rewards of more episodes."""
        solved = [reward >= 1.0 for reward in rewards]
        return History(completed=self.completed + sum(solved), total=self.total + len(solved))


def histories(traces: TraceStore, runs: Iterable[str]) -> dict[str, History]:
    """Read the record of each run: its finished episodes, no other's.

    Example:
        >>> from cmat_graph.traces import SQLTraceStore
        >>> histories(SQLTraceStore("sqlite://"), ["new"])["new"].weight
        1.0

    """
    return {run: History().extended(e.reward for e in traces.episodes(run=run) if e.reward is not None) for run in runs}


def assign(
    tasks: Sequence[Task],
    weights: Mapping[str, float],
    *,
    capacities: Mapping[str, int] | None = None,
    able: Mapping[str, Able] | None = None,
) -> dict[str, list[Task]]:
    """Hand each task to exactly one agent; shares are in proportion to the weights.

    Args:
        tasks: What to hand out; each agent's list keeps their order.
        weights: A positive weight for each agent; with enough tasks, every agent gets at least one.
        capacities: The most tasks an agent takes as long as the others can take the rest.
        able: Which tasks an agent can play; an agent that is not named plays all. Every task is handed out all the
            same: where shares by weight cannot be, they come as near to it as the tasks allow.

    Raises:
        ConfigurationError: A task that no agent can play, or a weight or a name that cannot be.

    Example:
        >>> tasks = [Task(id=str(i), prompt="?") for i in range(4)]
        >>> {name: [task.id for task in share] for name, share in assign(tasks, {"a": 1.0, "b": 0.3}).items()}
        {'a': ['0', '1', '3'], 'b': ['2']}

    """
    places = _places(tasks, weights, capacities=capacities or {}, able=able or {})
    return {agent: [tasks[i] for i in share] for agent, share in places.items()}


def run_shared(
    graphs: Mapping[str, Graph],
    tasks: Sequence[Task],
    *,
    env: Env,
    traces: TraceStore | None = None,
    prefix: str = "",
    able: Mapping[str, Able] | None = None,
    wave: int = 64,
    concurrency: int = 16,
    settings: dict[str, Any] | None = None,
    freeze_memory: bool | None = None,
    report: Report | None = None,
) -> list[Outcome]:
    """Play each task once with one of several graphs; results come in the order of the tasks.

    Tasks are played in waves: what the agents did in one wave is part of their weights in the next.

    Args:
        graphs: Compiled graphs by agent name.
        tasks: What to play.
        env: Where to play.
        traces: Where to record, and where the agents' records are read; None weighs all alike.
        prefix: Goes before an agent's name to make its run label.
        able: Which tasks an agent can play; an agent that is not named plays all.
        wave: Tasks between two looks at the records; never fewer than there are agents.
        concurrency: Tasks in flight, split like the tasks; every agent that has tasks plays at least one at a time.
        settings: Kept with each episode.
        freeze_memory: Only read long-term memory; None: learn from training tasks alone.
        report: Called with each outcome, in the caller's thread.

    Raises:
        ConfigurationError: As for `assign`.

    Example:
        >>> from cmat_graph import create_cmat_graph
        >>> from cmat_graph.envs import load_env
        >>> from cmat_graph.models import ExpertChatModel
        >>> env = load_env("database", size=8)
        >>> graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
        >>> outcomes = run_shared({"first": graph, "second": graph}, env.tasks(), env=env)
        >>> [outcome.task for outcome in outcomes] == env.tasks()
        True

    """
    _check_playable(tasks, graphs, able or {})  # now rather than in the wave that meets the task
    runs = {agent: prefix + agent for agent in graphs}
    read = histories(traces, runs.values()) if traces is not None else {}
    records = {agent: read.get(run, History()) for agent, run in runs.items()}
    size = len(tasks) if traces is None else max(wave, len(graphs))

    def play(agent: str, share: Sequence[Task], at_once: int, relay: Report) -> list[Outcome]:
        return run_episodes(
            graphs[agent],
            share,
            env=env,
            traces=traces,
            run=runs[agent],
            concurrency=at_once,
            settings=settings,
            freeze_memory=freeze_memory,
            report=relay,
        )

    outcomes: dict[int, Outcome] = {}
    for start in range(0, len(tasks), max(1, size)):
        now = tasks[start : start + size]
        weights = {agent: record.weight for agent, record in records.items()}
        log.info("tasks from %d on: weights %s", start, weights)
        places = _places(now, weights, capacities={}, able=able or {})
        shares = {agent: [now[i] for i in share] for agent, share in places.items() if share}
        for agent, played in _play_together(shares, play, concurrency=concurrency, report=report).items():
            outcomes |= {start + i: outcome for i, outcome in zip(places[agent], played, strict=True)}
            # An episode that was never recorded (a faulty task) says nothing about the agent.
            records[agent] = records[agent].extended(o.reward for o in played if o.episode_id)
    return [outcomes[i] for i in sorted(outcomes)]


def _play_together(
    shares: Mapping[str, Sequence[Task]],
    play: Callable[[str, Sequence[Task], int, Report], list[Outcome]],
    *,
    concurrency: int,
    report: Report | None,
) -> dict[str, list[Outcome]]:
    """Play all shares at the same time; what breaks one stops the others."""
    stop = Event()
    news: SimpleQueue[Outcome | Future[list[Outcome]]] = SimpleQueue()

    def relay(outcome: Outcome) -> None:  # in the thread of a share
        if stop.is_set():
            raise CancelledError
        news.put(outcome)

    lanes = _apportion(max(concurrency, len(shares)), {agent: len(share) for agent, share in shares.items()})
    with ThreadPoolExecutor(max_workers=len(shares), thread_name_prefix="share") as pool:
        try:
            futures = {agent: pool.submit(play, agent, share, lanes[agent], relay) for agent, share in shares.items()}
            for future in futures.values():
                future.add_done_callback(news.put)
            playing = len(futures)
            while playing:
                item = news.get()
                if isinstance(item, Future):
                    item.result()
                    playing -= 1
                elif report is not None:
                    report(item)
        except BaseException:  # Ctrl-C or a broken tool: what is in flight ends, nothing new starts
            stop.set()
            raise
    return {agent: future.result() for agent, future in futures.items()}


def _places(
    tasks: Sequence[Task],
    weights: Mapping[str, float],
    *,
    capacities: Mapping[str, int],
    able: Mapping[str, Able],
) -> dict[str, list[int]]:
    """Say which places of the task list each agent gets."""
    if not all(weight > 0 for weight in weights.values()) or not math.isfinite(sum(weights.values())):
        raise ConfigurationError(f"weights must be positive numbers, not {dict(weights)}")
    if unknown := [agent for agent in capacities if agent not in weights]:
        raise ConfigurationError(f"capacities name no agent: {unknown}; known: {list(weights)}")
    if any(capacity < 0 for capacity in capacities.values()):
        raise ConfigurationError(f"capacities must not be negative: {dict(capacities)}")
    groups = _check_playable(tasks, weights, able)
    members: dict[_Group, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    places: dict[str, list[int]] = {agent: [] for agent in weights}
    for group, counts in _flow(Counter(groups), weights, capacities).items():
        for i, agent in zip(members[group], _deal(counts), strict=True):
            places[agent].append(i)
    return {agent: sorted(share) for agent, share in places.items()}


def _check_playable(tasks: Sequence[Task], agents: Iterable[str], able: Mapping[str, Able]) -> list[_Group]:
    """Return the agents that can play each task; there must be one."""
    agents = list(agents)
    if not agents:
        raise ConfigurationError("there is no agent to play; name at least one")
    if unknown := [agent for agent in able if agent not in agents]:
        raise ConfigurationError(f"able names no agent: {unknown}; known: {agents}")
    groups = [tuple(agent for agent in agents if agent not in able or able[agent](task)) for task in tasks]
    for task, group in zip(tasks, groups, strict=True):
        if not group:
            raise ConfigurationError(f"no agent can play task {task.id!r}; widen able or leave the task out")
    return groups


def _flow(
    groups: Mapping[_Group, int], weights: Mapping[str, float], capacities: Mapping[str, int]
) -> dict[_Group, dict[str, int]]:
    """Say how many tasks of each group each agent takes.

    The agents' shares limit the flow. Where it falls short, the minimum cut parts them: one side can play nothing but
    its own groups and has too little room for them, the other side too much. So either side shares its own groups
    anew. This is the decomposition algorithm for the fairest base of a polymatroid (Fujishige 1980; Groenevelt 1991).
    """
    if not groups:
        return {}
    demand = sum(groups.values())
    graph = nx.DiGraph()
    for agent, share in _shares(demand, weights, capacities).items():
        graph.add_edge(agent, _SINK, capacity=share)
    for group, size in groups.items():
        graph.add_edge(_SOURCE, group, capacity=size)
        for agent in group:
            if agent in weights:
                graph.add_edge(group, agent)  # no capacity means no limit
    # Dinitz walks dicts in their order; networkx's default walks sets, whose order differs between processes.
    value, flow = nx.maximum_flow(graph, _SOURCE, _SINK, flow_func=dinitz)
    if value == demand:
        return {group: flow[group] for group in groups}
    _, sides = nx.minimum_cut(graph, _SOURCE, _SINK, flow_func=dinitz)
    parts: dict[_Group, dict[str, int]] = {}
    for side in sides:
        inside = {agent: weight for agent, weight in weights.items() if agent in side}
        parts |= _flow({group: size for group, size in groups.items() if group in side}, inside, capacities)
    return parts


def _shares(total: int, weights: Mapping[str, float], capacities: Mapping[str, int]) -> dict[str, int]:
    """Split a number of tasks by weight; what is over an agent's capacity goes to the others while they have room."""
    full: dict[str, int] = {}
    while open_ := {agent: weight for agent, weight in weights.items() if agent not in full}:
        shares = _apportion(total - sum(full.values()), open_)
        over = {agent: capacities[agent] for agent in open_ if shares[agent] > capacities.get(agent, total)}
        if not over:
            return full | shares
        full |= over
    beyond = _apportion(total - sum(full.values()), weights)
    return {agent: full[agent] + beyond[agent] for agent in weights}


def _apportion(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Split a number by largest remainder; nobody gets 0 while there is one for each."""
    whole = sum(weights.values())
    quotas = {name: total * (weight / whole) for name, weight in weights.items()}
    shares = {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: shares[name] - quotas[name])
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    if total >= len(shares):
        for name in [name for name, share in shares.items() if share == 0]:
            richest = max((n for n in shares if shares[n] > 1), key=lambda n: shares[n] - quotas[n])
            shares[richest] -= 1
            shares[name] = 1
    return shares


def _deal(counts: Mapping[str, int]) -> list[str]:
    """Name the agents in turn, each spread evenly: task lists are often sorted, and one end may be harder."""
    turns = [((turn + 0.5) / count, agent) for agent, count in counts.items() for turn in range(count)]
    return [agent for _, agent in sorted(turns, key=lambda turn: turn[0])]
