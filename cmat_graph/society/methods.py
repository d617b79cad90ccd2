"""All methods, one line each (Multiagent Finetuning, sections 2 and 4 and its appendices; what is ours is marked).

A method plays its arms for one seed and yields a `Score` for each; what is recorded is not played again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from cmat_graph.society.finetuned import Recipe, finetune
from cmat_graph.society.score import Score
from cmat_graph.society.single import majority_ft, star, student
from cmat_graph.society.untuned import cooperate, debate, identity, samples
from cmat_graph.society.workshop import Workshop

Play = Callable[[Workshop, int, int], Iterator[Score]]
"""Plays the arms of a method: the workshop, the seed, how many iterations."""
Group = Literal["baseline", "society", "ablation", "extension"]

MAFT = Recipe(name="maft")
SINGLE = Recipe(name="single_ft", sets="pooled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of the report, or some that are counted from the same plays."""

    play: Play
    group: Group
    arms: dict[str, str]
    """Its arms with their titles."""
    iterates: bool = False
    """Whether it has a curve over iterations; its arms are then called `NAME-K`."""


def _society(recipe: Recipe, title: str, group: Group = "ablation") -> Method:
    arms = {recipe.name: title}
    if recipe.alone:
        arms[f"{recipe.name}_alone"] = f"{title}, no debate"
    return Method(play=partial(finetune, recipe=recipe), group=group, arms=arms, iterates=True)


METHODS: dict[str, Method] = {
    "samples": Method(
        play=samples,
        group="baseline",
        arms={
            "base": "Base",
            "majority": "Majority",
            "vote_plain": "Vote at equal calls, no summary (ours)",
            "vote": "Vote at equal calls (ours)",
        },
    ),
    "debate": Method(play=debate, group="baseline", arms={"debate": "Debate"}),
    "star": Method(play=star, group="baseline", arms={"star": "STaR"}),
    "majority_ft": Method(play=majority_ft, group="baseline", arms={"majority_ft": "Majority FT"}),
    "maft": _society(MAFT, "Multiagent FT", "society"),
    "single_ft": _society(SINGLE, "Single-agent FT"),
    "no_summary": _society(Recipe(name="no_summary", how={"summarise": False}), "Multiagent FT without summary"),
    "no_critic": _society(Recipe(name="no_critic", critics=False), "Multiagent FT without critic"),
    "cooperate": Method(play=cooperate, group="ablation", arms={"cooperate": "Cooperative debate"}),
    "cooperate_ft": _society(Recipe(name="cooperate_ft", how={"mode": "cooperate"}), "Cooperative FT"),
    "unique_id": Method(play=identity, group="ablation", arms={"unique_id": "Unique id"}),
    "hot": _society(
        Recipe(name="hot", sets="pooled", tested={"temperature": 2.0}, trained_as=SINGLE),
        "Single-agent FT at temperature 2",
    ),
    "share": _society(Recipe(name="share", sets="share"), "Single-agent FT on one agent's answers (ours)", "extension"),
    "union": _society(Recipe(name="union", sets="union"), "One model on the data of all agents (ours)", "extension"),
    "student": Method(play=student, group="extension", arms={"student": "Debate distilled into one call (ours)"}),
    "dpo": _society(Recipe(name="dpo", sets="preferences"), "Multiagent DPO (ours)", "extension"),
}
