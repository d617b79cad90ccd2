"""One model that learns from many and answers with few calls: Majority FT, the distilled debate, and STaR."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmat_graph.adapters import AdapterCard
from cmat_graph.debate.records import Debate
from cmat_graph.errors import EmptyHarvestError
from cmat_graph.society.score import Score, label_quality
from cmat_graph.society.team import Team
from cmat_graph.society.untuned import keep_samples
from cmat_graph.society.workshop import Workshop, left_out, seed_of
from cmat_graph.tuning.dataset import Dataset
from cmat_graph.tuning.debates import pooled_set, star_set, student_set
from cmat_graph.types import Task

NODE = "generator"


def majority_ft(w: Workshop, seed: int, iterations: int = 1) -> Iterator[Score]:
    """Finetune one model on all samples that hit the vote of N; test the vote of N samples of it."""
    agents, arm = w.settings.agents, "majority_ft"
    if (known := w.scores.read(arm, seed)) is not None:
        yield known
        return
    team, run = Team.of_one(None, agents), f"seed-{seed}/samples"
    labels, spent = _labels(w, run, team, seed, rounds=1)
    card = _train(w, arm, seed, lambda folder: pooled_set(w.traces, folder, **_rules(w, run)))
    debates = w.test(f"seed-{seed}/{arm}", Team.of_one(card, agents), seed=seed_of(seed, "test"), rounds=1)
    yield keep_samples(w, arm, seed, debates, agents, **_told(w, labels, _with(spent, card), card))


def student(w: Workshop, seed: int, iterations: int = 1) -> Iterator[Score]:
    """Distil the debate into one model: it learns the winning answers, and answers with one call."""
    arm = "student"
    if (known := w.scores.read(arm, seed)) is not None:
        yield known
        return
    run = f"seed-{seed}/untuned"
    labels, spent = _labels(w, run, Team.of_one(None, w.settings.agents), seed)
    card = _train(w, arm, seed, lambda folder: student_set(w.traces, folder, every_winner=True, **_rules(w, run)))
    debates = w.test(f"seed-{seed}/{arm}", Team.of_one(card, 1), seed=seed_of(seed, "test"), rounds=1)
    yield keep_samples(w, arm, seed, debates, 1, **_told(w, labels, _with(spent, card), card))


def star(w: Workshop, seed: int, iterations: int = 1) -> Iterator[Score]:
    """Finetune one model on its answers that are right by gold, with a hint where it failed (STaR); test one sample.

    Each loop asks the last model, and trains the base anew on what came of it, as STaR does. It is the one method here
    that sees the answers of training questions.
    """
    arm = "star"
    if (known := w.scores.read(arm, seed)) is not None:
        yield known
        return
    card: AdapterCard | None = None
    labels: list[Debate] = []
    spent = {"seconds": 0.0, "calls": 0.0, "tokens": 0.0}
    for loop in range(1, w.settings.star_loops + 1):
        run, team = f"seed-{seed}/star-{loop}", Team.of_one(card, 1)
        labels = w.label(run, team, seed=seed_of(seed, "star", loop), rounds=1)
        wrong = [debate.task for debate in labels if not w.is_right(debate.task, debate.reply)]
        hinted, helped = _hinted(w, f"{run}-hinted", team, wrong, seed_of(seed, "hint", loop))
        spent["seconds"] += sum(debate.seconds for debate in (*labels, *helped))
        spent["calls"] += len(labels) + len(helped)

        def make(folder: Path, run: str = run, hinted: str = hinted) -> Dataset:
            def score(task: Task, reply: str) -> float:
                return float(w.is_right(task, reply))

            return star_set(w.traces, folder, hinted=hinted, scorer=score, **_rules(w, run))

        card = _train(w, f"{arm}-{loop}", seed, make)
        spent = _with(spent, card)
    debates = w.test(f"seed-{seed}/{arm}", Team.of_one(card, 1), seed=seed_of(seed, "test"), rounds=1)
    told = _told(w, labels, spent, card)
    yield keep_samples(w, arm, seed, debates, 1, **told)


def _hinted(w: Workshop, run: str, team: Team, wrong: Sequence[Task], seed: int) -> tuple[str, list[Debate]]:
    """Ask again with the true answer as a hint; return the run's label, empty where nothing was wrong, and replies."""
    if not wrong:
        return "", []
    gold = {prompt: w.kind.extract(replies[-1]) for prompt, replies in w.setup.env.demonstrations().items()}
    asked = [
        replace(task, prompt=w.pack.hint.format(question=task.prompt, answer=gold[task.prompt]))
        for task in wrong
        if gold.get(task.prompt)
    ]
    as_it_stands = replace(w.pack, name=f"{w.pack.name}-hint", start="{question}")
    return run, w.label(run, team, seed=seed, tasks=asked, pack=as_it_stands, rounds=1)


def _labels(w: Workshop, run: str, team: Team, seed: int, **how: Any) -> tuple[list[Debate], dict[str, float]]:
    labels = w.label(run, team, seed=seed_of(seed, "label", 1), **how)
    return labels, {
        "seconds": round(sum(debate.seconds for debate in labels), 1),
        "calls": float(sum(debate.calls for debate in labels)),
        "tokens": 0.0,
    }


def _rules(w: Workshop, run: str) -> dict[str, Any]:
    return {
        "run": run,
        "node": NODE,
        "settings": w.settings.sets,
        "validation_share": 0.0,
        "held_out": w.setup.test,
    }


def _train(w: Workshop, arm: str, seed: int, make: Callable[[Path], Dataset]) -> AdapterCard | None:
    """Make a set and train one model on it; None where there is nothing to learn, and the base stays."""
    try:
        dataset = make(w.setup.folder / "data" / f"seed-{seed}" / arm)
        return w.train(
            NODE, f"{arm}-seed-{seed}", dataset.folder, settings=w.settings.generator, seed=seed_of(seed, arm)
        )
    except EmptyHarvestError:
        return None


def _told(w: Workshop, labels: Sequence[Debate], spent: dict[str, float], card: AdapterCard | None) -> dict[str, Any]:
    return {
        "labels": label_quality(labels, {d.task.id: w.is_right(d.task, d.reply) for d in labels}),
        "trained": {**spent, "seconds": round(spent["seconds"], 1), "models": int(card is not None)},
        "sets": {} if card is not None else {"none": "nothing to learn from"},
        "adapters": {NODE: card.key} if card is not None else {},
    }


def _with(spent: dict[str, float], card: AdapterCard | None) -> dict[str, float]:
    """Add what a training took."""
    if card is None:
        return spent
    return {
        **spent,
        "tokens": spent["tokens"] + card.tokens,
        "seconds": spent["seconds"] + card.seconds,
        "left_out": spent.get("left_out", 0) + left_out(card),
    }
