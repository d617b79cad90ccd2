"""The rounds of an improvement. Read top to bottom: collect, train, gate, swap; then measure the curve.

Each stage can be repeated without harm: plays that are recorded are not played again, training goes on from its last
checkpoint, and a promotion that was made is not made twice. So after a crash the same call simply goes on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, cast

from langchain_core.language_models import BaseChatModel

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.errors import ConfigurationError, EmptyHarvestError
from cmat_graph.evaluation import summarise
from cmat_graph.gate import gate, settle
from cmat_graph.graph import create_cmat_graph
from cmat_graph.improve.settings import ImproveSettings
from cmat_graph.improve.state import Improved, Point, State
from cmat_graph.paired import compare_rewards
from cmat_graph.resuming import play
from cmat_graph.rollout import Graph, Outcome
from cmat_graph.splits import TRAINED_ON, is_validation
from cmat_graph.team import Team
from cmat_graph.traces.base import TraceStore
from cmat_graph.traces.sql import SQLTraceStore
from cmat_graph.tuning.distill import check_init, distill
from cmat_graph.tuning.harvest import harvest
from cmat_graph.tuning.machine import check_machine
from cmat_graph.types import Env, Episode, Task


class Report(Protocol):
    """Shows how far an improvement is."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show that of a stage, such as `round 1: collect`, `done` of `total` are done."""


def improve(
    directory: str | Path,
    *,
    env: Env,
    base: str = "nano",
    settings: ImproveSettings = ImproveSettings(),
    teacher: BaseChatModel | None = None,
    test: Sequence[Task] = (),
    registry: AdapterRegistry | None = None,
    concurrency: int = 16,
    report: Report | None = None,
) -> Improved:
    """Improve the nodes of a graph on an environment's training tasks, round by round.

    A round plays the training tasks with what is promoted (drawing several times where it fails), harvests the
    successes, trains an adapter for each node, lets the gate compare it with the incumbent on the validation tasks,
    and promotes it if it is better. The same call after a crash goes on; so does one with more rounds.

    Args:
        directory: Everything lies here, but for a registry of your own.
        env: Where to play. Its training tasks that `splits.is_validation` picks are the gate's, never trained on.
        base: The base model.
        settings: How to go about it.
        teacher: Plays what the model could not solve; without one it learns from itself alone.
        test: Tasks for the curve at the end; they take part in nothing else.
        registry: Where the adapters go; by default `directory/adapters`. What is promoted there is where it begins.
        concurrency: Tasks in flight.
        report: Called with the stage and how far it is.

    Raises:
        ConfigurationError: The directory holds another improvement, or there are no tasks to train on or to gate with.
        AdapterMismatchError: What is promoted is of another base or method, and training is to begin from it.

    Example:
        >>> from cmat_graph.envs import load_env
        >>> env = load_env("database", size=128)
        >>> improve("improved/", env=env, test=env.tasks("test")).curve  # doctest: +SKIP

    """
    folder = Path(directory)
    registry = registry or AdapterRegistry(folder / "adapters")
    practice, held = _divide(env, settings)
    place = resolve_base(base)
    check_machine(settings.train)
    serving = {node: card for node in settings.nodes if (card := registry.serving(node)) is not None}
    if settings.start == "previous":
        for card in serving.values():
            check_init(card, base, hash_base(place), settings.train)
    about = {
        "base": hash_base(place) or base,
        "env": env.name,
        "task_set": hashlib.sha256("\n".join(task.id for task in (*practice, *held)).encode()).hexdigest()[:16],
        "teacher": _name(teacher),
        **settings.to_json(),
    }
    state = State(folder, about)
    judged = "checker" in settings.nodes or "reflect" in settings.nodes
    if not state.improved.teams:
        state.improved.teams.append({node: card.name for node, card in serving.items()})
        state.save()

    def team(at: int) -> Team:
        cards = {node: registry.get(f"{node}/{name}") for node, name in state.improved.teams[at].items()}
        return Team(base=base, adapters=cards, attempts=settings.attempts if judged else 1, probes=judged)

    with (
        closing(state),
        closing(SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")) as traces,
        closing(SQLTraceStore(f"sqlite:///{folder / 'heldout.db'}")) as heldout,
    ):
        run = _Run(env, base, settings, teacher, registry, folder, traces, heldout, concurrency, report or _silent)
        for number in range(1, settings.rounds + 1):
            if len(state.improved.teams) > number:
                continue
            notes, current = state.round(number), team(number - 1)
            if "collect" not in notes:
                notes["collect"] = run.collect(number, current, practice)
                state.save()
            for node in settings.nodes:
                told = notes["nodes"].setdefault(node, {"since": datetime.now(UTC).isoformat(timespec="seconds")})
                if "verdict" not in told:
                    state.save()
                    told.update(run.renew(number, node, current, held, test, since=told["since"]))
                    state.save()
                if told["promoted"]:
                    current = current.with_adapter(node, registry.get(f"{node}/{told['adapter']}"))
            state.improved.teams.append({node: card.name for node, card in current.adapters.items()})
            state.save()
        if test:
            teams = [team(at) for at in range(settings.rounds + 1)]
            state.improved.curve = run.measure(teams, test)
            state.save()
    return state.improved


class _Run:
    """One process's part of an improvement: what all stages need, and the stages."""

    def __init__(
        self,
        env: Env,
        base: str,
        settings: ImproveSettings,
        teacher: BaseChatModel | None,
        registry: AdapterRegistry,
        folder: Path,
        traces: SQLTraceStore,
        heldout: SQLTraceStore,
        concurrency: int,
        report: Report,
    ) -> None:
        self.env, self.base, self.settings, self.teacher = env, base, settings, teacher
        self.registry, self.folder, self.traces, self.heldout = registry, folder, traces, heldout
        self.concurrency, self.report = concurrency, report

    def collect(self, number: int, team: Team, tasks: Sequence[Task]) -> dict[str, int]:
        """Play the training tasks; draw again where it failed, and then ask the teacher."""
        loop = replace(team, attempts=self.settings.attempts, probes=True)
        left, plays = list(tasks), 0
        for sample in range(self.settings.samples):
            chance = {"temperature": self.settings.temperature, "seed": self._seed(number, sample)} if sample else {}

            def graph(chance: dict[str, Any] = chance) -> Graph:
                return loop.graph(self.registry, use_reward=True, **chance)

            outcomes = self._play(
                graph, left, _run_of(number, f"sample-{sample}"), f"round {number}: play {sample + 1}"
            )
            plays += len(outcomes)
            left = [outcome.task for outcome in outcomes if outcome.reward < 1.0]
            if not left:
                break
        own = len(tasks) - len(left)
        others = tuple(node for node in self.settings.nodes if node != "assistant")
        if others:  # apart from the plays above: where an untrained checker forces a step, that step teaches nothing
            manned = replace(loop, bare=others)
            self._play(
                lambda: manned.graph(self.registry, use_reward=True),
                tasks,
                _run_of(number, "judged"),
                f"round {number}: play with the {' and the '.join(others)}",
            )
        if self.teacher is not None and left:
            teacher = self.teacher
            outcomes = self._play(
                lambda: create_cmat_graph(teacher, max_attempts=1).compile(),
                left,
                _run_of(number, "teacher"),
                f"round {number}: the teacher",
            )
            left = [outcome.task for outcome in outcomes if outcome.reward < 1.0]
        return {
            "tasks": len(tasks),
            "plays": plays,
            "solved": own,
            "taught": len(tasks) - len(left) - own,
            "unsolved": len(left),
        }

    def renew(
        self, number: int, node: str, team: Team, held: Sequence[Task], test: Sequence[Task], *, since: str
    ) -> dict[str, Any]:
        """Train an adapter for a node and let the gate decide on it."""
        try:
            card = self._train(number, node, team, held, test, since)
        except EmptyHarvestError as exc:
            return {"adapter": "", "promoted": False, "verdict": f"not trained: {exc}"}

        def show(done: int, total: int, arm: str) -> None:
            self.report(f"round {number}: gate for the {node}", done, total, arm)

        result = gate(
            card,
            held,
            env=self.env,
            registry=self.registry,
            team=team,
            alpha=self.settings.alpha,
            traces=self.heldout,
            concurrency=self.concurrency,
            seed=self.settings.seed,
            report=show,
        )
        card = settle(self.registry, result)
        return {"adapter": card.name, "promoted": result.better, "verdict": card.verdict, "gate": result.to_json()}

    def _train(
        self, number: int, node: str, team: Team, held: Sequence[Task], test: Sequence[Task], since: str
    ) -> AdapterCard:
        name = f"round-{number}"
        card = self.registry.find(node, name)
        if card is not None and card.created >= since:
            return card  # killed between its registration and the note that it is done

        def show(step: int, steps: int, loss: float) -> None:
            self.report(f"round {number}: train the {node}", step, steps, f"loss {loss:.3f}")

        drawn = self.folder / f"dataset-{node}-{number}"
        rounds = range(1 if self.settings.data == "all" else number, number + 1)
        # The gate plays these anyway; what the incumbent solves of them is the validation part of the dataset.
        self._play(
            lambda: team.graph(self.registry), held, team.label, f"round {number}: the gate's tasks", heldout=True
        )
        dataset = harvest(
            cast(TraceStore, _Rounds(self.traces, rounds, held=(self.heldout, team.label))),
            drawn,
            settings=replace(self.settings.harvest, node=node, run=None),
            held_out=test,
        )
        init = team.adapters.get(node) if self.settings.start == "previous" else None
        for earlier in self.registry.list(node):
            if earlier.dataset_hash == dataset.hash and earlier.init == (init.key if init else ""):
                shutil.rmtree(drawn, ignore_errors=True)
                raise EmptyHarvestError(f"nothing new to learn from since {earlier.id}")
        card = distill(
            None,
            self.registry,
            node=node,
            base=self.base,
            name=name,
            dataset=drawn,
            settings=replace(self.settings.train, seed=self.settings.train.seed + self.settings.seed),
            init=init,
            progress=show,
        )
        shutil.rmtree(drawn, ignore_errors=True)
        return card

    def measure(self, teams: Sequence[Team], test: Sequence[Task]) -> list[Point]:
        """Play the test tasks with each team; one that did not change is not played again."""
        points: list[Point] = []
        begun: tuple[float, ...] = ()
        for number, team in enumerate(teams):
            outcomes = self._play(
                lambda team=team: team.graph(self.registry),  # type: ignore[misc]
                test,
                team.label,
                f"test after round {number}" if number else "test of the beginning",
                heldout=True,
            )
            arm = summarise(team.label, outcomes, self.env)
            begun = begun or arm.rewards
            paired = compare_rewards(arm.rewards, begun, seed=self.settings.seed)
            points.append(
                Point(
                    round=number,
                    team=team.label,
                    success_rate=arm.success_rate,
                    stderr=arm.stderr,
                    n=arm.n,
                    gain=paired.difference,
                    gain_stderr=paired.stderr,
                    p=paired.p,
                )
            )
        return points

    def _play(
        self, graph: Callable[[], Graph], tasks: Sequence[Task], run: str, stage: str, *, heldout: bool = False
    ) -> list[Outcome]:
        return play(
            graph,
            tasks,
            env=self.env,
            traces=self.heldout if heldout else self.traces,
            run=run,
            concurrency=self.concurrency,
            freeze_memory=True,
            report=lambda done, total: self.report(stage, done, total),
        )

    def _seed(self, number: int, sample: int) -> int:
        return self.settings.seed * 1_000_003 + number * 1_009 + sample


class _Rounds:
    """The episodes of some rounds; as much of a trace store as a harvest reads.

    Of the runs each is read in turn, so that the order stays the same whoever was killed and went on when.

    Args:
        traces: The plays that are learned from.
        rounds: Whose.
        held: Where plays of the gate's tasks are, and the run to validate on.

    """

    def __init__(self, traces: SQLTraceStore, rounds: range, *, held: tuple[SQLTraceStore, str] | None = None) -> None:
        self._traces, self._held = traces, held
        self._prefixes = tuple(f"round-{number}/" for number in rounds)

    def episodes(self, *, run: str | None = None, **choice: Any) -> Iterator[Episode]:
        """Read them, those of one run or of all."""
        known = sorted({str(each["run"]) for each in self._traces.runs()})
        for each in known if run is None else [run]:
            if each.startswith(self._prefixes):
                yield from self._traces.episodes(run=each, **choice)
        if self._held is not None and run is None:
            traces, label = self._held
            yield from traces.episodes(run=label, **choice)


def _run_of(number: int, what: str) -> str:
    return f"round-{number}/{what}"


def _divide(env: Env, settings: ImproveSettings) -> tuple[list[Task], list[Task]]:
    """Return the tasks to practise on, and those that the gate plays."""
    share = settings.harvest.validation_share
    mine = [task for task in env.tasks() if task.split in TRAINED_ON]
    practice = [task for task in mine if not is_validation(task.id, share)]
    held = [task for task in mine if is_validation(task.id, share)]
    if not practice or not held:
        raise ConfigurationError(
            f"{len(mine)} training tasks leave {len(practice)} to practise on and {len(held)} for the gate; "
            "give more tasks, or another validation_share"
        )
    return practice[: settings.tasks or None], held


def _name(teacher: BaseChatModel | None) -> str:
    return str(getattr(teacher, "model_name", None) or type(teacher).__name__) if teacher is not None else ""


def _silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""
