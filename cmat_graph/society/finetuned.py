"""Societies that are finetuned round after round (Multiagent Finetuning, Algorithm 1), and what they are compared with.

One iteration: debate the training questions, take the consensus as the label, make the sets, train, test. The sets are
made anew each time; nothing of an earlier iteration is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cmat_graph.adapters import AdapterCard
from cmat_graph.errors import AdapterNotFoundError, EmptyHarvestError
from cmat_graph.society.score import Score, label_quality
from cmat_graph.society.team import Team
from cmat_graph.society.untuned import keep_samples
from cmat_graph.society.workshop import Workshop, left_out, seed_of
from cmat_graph.tuning.dataset import Dataset
from cmat_graph.tuning.debates import debate_sets, pooled_set, preference_sets, union_set
from cmat_graph.tuning.settings import TrainSettings

ONE = "generator"
"""The seat of a model that speaks for all agents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a society is finetuned."""

    name: str
    sets: Literal["agents", "pooled", "share", "union", "preferences"] = "agents"
    """`agents`: each on its own data. `pooled`: one model on all first answers that hit the consensus. `share`: one
    model on those that the first agent gave. `union`: one model on the rows of all agents. `preferences`: each by DPO
    on its own pairs."""
    critics: bool = True
    """Whether critics are trained; otherwise the generators speak in all rounds."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """What of the debate is other than usual: fields of `DebateSettings`."""
    tested: Mapping[str, Any] = field(default_factory=dict)
    """What is other in the test alone, such as the temperature."""
    trained_as: Recipe | None = None
    """The recipe whose adapters are tested; None trains its own."""

    @property
    def alone(self) -> bool:
        """Whether one model speaks for all."""
        return self.sets in ("pooled", "share", "union")


def finetune(w: Workshop, seed: int, iterations: int, *, recipe: Recipe) -> Iterator[Score]:
    """Finetune and test, iteration by iteration; yield a score for each.

    A recipe with one model yields two: its copies debating, and one of them alone (`NAME_alone-K`).
    """
    if recipe.trained_as is not None:
        yield from _borrow(w, seed, iterations, recipe, recipe.trained_as)
        return
    team = Team.of_one(None, w.settings.agents)
    spent: dict[str, float] = {}
    for number in range(1, iterations + 1):
        known = w.scores.read(f"{recipe.name}-{number}", seed)
        if known is None:
            run, told = _label(w, seed, number, recipe, team, dict(spent))
            team = _train(w, seed, number, recipe, team, run, told)
            yield from (found := list(_test(w, seed, number, recipe, team, told)))
            known = found[-1]
        else:
            team = _seated(team, _cards(w, seed, number, recipe), recipe)
            _check_whole(w, team, known)
            yield from _recorded(w, known, recipe)
        spent = dict(known.trained)


def _borrow(w: Workshop, seed: int, iterations: int, recipe: Recipe, other: Recipe) -> Iterator[Score]:
    """Test another recipe's adapters in another way."""
    team = Team.of_one(None, w.settings.agents)
    numbers = {f"{other.name}-{number}": number for number in range(1, iterations + 1)}
    for score in finetune(w, seed, iterations, recipe=other):
        if (number := numbers.get(score.arm)) is None:
            continue
        team = _seated(team, _cards(w, seed, number, other), other)
        known = w.scores.read(f"{recipe.name}-{number}", seed)
        if known is not None:
            yield from _recorded(w, known, recipe)
        else:
            yield from _test(w, seed, number, recipe, team, {"trained": score.trained, "labels": score.labels})


def _recorded(w: Workshop, known: Score, recipe: Recipe) -> Iterator[Score]:
    """Yield the scores of an iteration that is done, in the order in which it was played."""
    number = known.arm.rpartition("-")[2]
    if recipe.alone and (other := w.scores.read(f"{recipe.name}_alone-{number}", known.seed)):
        yield other
    yield known


def _check_whole(w: Workshop, team: Team, known: Score) -> None:
    """Refuse to go on from other adapters than those that were measured.

    Raises:
        AdapterNotFoundError: One is gone or was replaced; without it an agent would silently begin anew.

    """
    keys = team.keys()
    if other := sorted(node for node, key in known.adapters.items() if keys.get(node) != key):
        raise AdapterNotFoundError(
            f"{known.adapters[other[0]]} is no longer in {w.registry.root}; restore it, or begin in another folder: "
            "what came after it was learned from it"
        )


def _label(
    w: Workshop, seed: int, number: int, recipe: Recipe, team: Team, spent: dict[str, float]
) -> tuple[str, dict[str, Any]]:
    """Debate the training questions; return the run's label, and what to keep of it."""
    run = _label_run(seed, number, recipe)
    debates = w.label(run, team, seed=seed_of(seed, "label", number), **recipe.how)
    spent["seconds"] = spent.get("seconds", 0.0) + sum(debate.seconds for debate in debates)
    spent["calls"] = spent.get("calls", 0.0) + sum(debate.calls for debate in debates)
    quality = label_quality(debates, {d.task.id: w.is_right(d.task, d.reply) for d in debates})
    return run, {"labels": quality, "trained": spent}


def _label_run(seed: int, number: int, recipe: Recipe) -> str:
    """Name the run; the bare base's first debates are the same for all recipes that debate alike."""
    if number > 1:
        return f"seed-{seed}/{recipe.name}-{number}"
    return f"seed-{seed}/untuned" + "".join(f"-{name}={value}" for name, value in sorted(recipe.how.items()))


def _train(w: Workshop, seed: int, number: int, recipe: Recipe, team: Team, run: str, told: dict[str, Any]) -> Team:
    """Make the sets and train; an agent without a row stays as it was."""
    folder = w.setup.folder / "data" / f"seed-{seed}" / f"{recipe.name}-{number}"
    sets, told["sets"] = _sets(w, recipe, folder, run)
    cards: dict[str, AdapterCard] = {}
    for at, (node, dataset) in enumerate(sorted(sets.items())):
        before = team.generators[0] if recipe.alone else team.seats[node]
        try:
            cards[node] = w.train(
                node,
                _name(seed, number, recipe),
                dataset.folder,
                settings=_settings(w, recipe, node),
                seed=seed_of(seed, recipe.name, number, at),
                init=before,
            )
        except EmptyHarvestError as exc:  # each of its rows is too long
            told["sets"][node] = {"rows": told["sets"][node], "made": False, "why": str(exc)}
    after = _seated(team, cards, recipe)
    spent = told["trained"]
    spent["models"] = len(set(after.keys().values()))
    spent["tokens"] = spent.get("tokens", 0) + sum(card.tokens for card in cards.values())
    spent["left_out"] = spent.get("left_out", 0) + sum(map(left_out, cards.values()))
    spent["seconds"] = round(spent["seconds"] + sum(card.seconds for card in cards.values()), 1)
    return after


def _sets(w: Workshop, recipe: Recipe, folder: Path, run: str) -> tuple[Mapping[str, Dataset], dict[str, Any]]:
    """Make the training sets of an iteration; return them by seat, and their counts."""
    rules = {"run": run, "settings": w.settings.sets, "validation_share": 0.0, "held_out": w.setup.test}
    try:
        if recipe.sets in ("pooled", "share"):
            agents = (0,) if recipe.sets == "share" else None
            one = pooled_set(w.traces, folder / ONE, node=ONE, agents=agents, **rules)  # type: ignore[arg-type]
        elif recipe.sets == "union":
            one = union_set(w.traces, folder / ONE, node=ONE, **rules)  # type: ignore[arg-type]
        else:
            make = preference_sets if recipe.sets == "preferences" else debate_sets
            sets = make(w.traces, folder, **rules)  # type: ignore[arg-type]
            taught = [node for node in sets.report["agents"] if recipe.critics or node.startswith(ONE)]
            return {n: sets[n] for n in taught if n in sets}, {n: sets.report["agents"][n] for n in taught}
    except EmptyHarvestError as exc:
        return {}, {"none": str(exc)}
    return {ONE: one}, {ONE: one.manifest["rows"]}


def _settings(w: Workshop, recipe: Recipe, node: str) -> TrainSettings:
    if recipe.sets == "preferences":
        return w.settings.preference
    return w.settings.critic if node.startswith("critic") else w.settings.generator


def _cards(w: Workshop, seed: int, number: int, recipe: Recipe) -> dict[str, AdapterCard]:
    """Return the adapters that an iteration made, by node; who has none was kept as it was."""
    nodes = [ONE] if recipe.alone else Team.of_one(None, w.settings.agents).seats
    made = {node: w.registry.find(node, _name(seed, number, recipe)) for node in nodes}
    return {node: card for node, card in made.items() if card is not None}


def _seated(team: Team, cards: Mapping[str, AdapterCard], recipe: Recipe) -> Team:
    """Put an iteration's adapters into their seats."""
    if recipe.alone and ONE in cards:
        return Team.of_one(cards[ONE], len(team.generators))
    return team.seat(cards, critics_follow=not recipe.critics)


def _name(seed: int, number: int, recipe: Recipe) -> str:
    return f"{recipe.name}-{number}-seed-{seed}"


def _test(w: Workshop, seed: int, number: int, recipe: Recipe, team: Team, told: dict[str, Any]) -> Iterator[Score]:
    """Debate the test questions."""
    arm = f"{recipe.name}-{number}"
    run = f"seed-{seed}/{arm}"
    debates = w.test(run, team, seed=seed_of(seed, "test"), **{**recipe.how, **recipe.tested})
    told = {**told, "adapters": team.keys()}
    if recipe.alone:
        yield keep_samples(w, f"{recipe.name}_alone-{number}", seed, debates, 1, **told)
    yield w.keep(arm, seed, debates, diversity=w.diversity(run, team, seed=seed), **told)
