"""`cmat-graph society`: finetune agents on their own debates, and compare that with all that is simpler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.shared import console, json_option, progress
from cmat_graph.errors import ConfigurationError
from cmat_graph.tuning.settings import METHODS as TRAINED_BY
from cmat_graph.tuning.settings import TrainSettings

if TYPE_CHECKING:  # `--help` does not wait for LangGraph
    from cmat_graph.society import Findings, Setup

_EPOCHS, _TRAINING = 2.0, TrainSettings()


@click.group("society")
def command() -> None:
    """Finetune a society of generators and critics on its own debates, round after round.

    All agents are adapters on one base. Nobody is shown the answers of training questions: the consensus is the label.
    The same command goes on where it was stopped.

    \b
    Examples:
      cmat-graph society train --out society --iterations 2
      cmat-graph debate "What is the result of 10+4*5+6-2*3?" --society society
      cmat-graph society reproduce --out report --tasks problems.jsonl --seeds 3 --iterations 5
    """


_QUESTIONS = (
    click.option("--env", "env_name", default="questions", show_default=True, help="Environment that grades answers."),
    click.option("--tasks", default="builtin", show_default=True, help="File of questions, or 'builtin'."),
    click.option("--size", type=click.IntRange(2), default=1000, show_default=True, help="Built-in questions to make."),
    click.option("--seed", type=int, default=7, show_default=True, help="Seed of the built-in questions."),
    click.option("--test-split", default="test", show_default=True, help="The split that is measured on."),
    click.option(
        "--test", "test_count", type=click.IntRange(1), default=500, show_default=True, help="At most so many."
    ),
)
_SOCIETY = (
    click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder of this society."),
    click.option("--train-split", default="train", show_default=True, help="The split that is learned from."),
    click.option(
        "--train", "train_count", type=click.IntRange(1), default=500, show_default=True, help="At most so many."
    ),
    click.option("--base", default="abacus", show_default=True, help="abacus, a model folder, or a hub id."),
    click.option("--pack", help="Prompts: arithmetic, gsm8k, math, choice, open; by default those of the questions."),
    click.option(
        "--agents", type=click.IntRange(1), default=3, show_default=True, help="Generators, and as many critics."
    ),
    click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Rounds of a debate."),
    click.option("--iterations", type=click.IntRange(1), default=1, show_default=True, help="Times of finetuning."),
    click.option(
        "--start",
        type=click.Choice(["previous", "base"]),
        default="previous",
        show_default=True,
        help="What each finetuning begins from: the agent's last adapter, or the base.",
    ),
    click.option("--temperature", type=float, default=1.0, show_default=True),
    click.option("--top-p", type=float, default=0.9, show_default=True),
    click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest reply."),
    click.option(
        "--mixing",
        type=click.Choice(["proportion", "fraction", "authors"]),
        default="proportion",
        show_default=True,
        help="How repairs (C-) and answers that stayed right (C+) are mixed for critics.",
    ),
    click.option("--w", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Weight of the repairs."),
    click.option(
        "--loss",
        type=click.Choice(["final", "all_turns"]),
        default="final",
        show_default=True,
        help="Learn an agent's last reply alone, or all of them.",
    ),
    click.option(
        "--minimum-agreement",
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        help="Leave questions out on whose label fewer agree.",
    ),
    click.option("--method", type=click.Choice(TRAINED_BY), default=_TRAINING.method, show_default=True),
    click.option("--rank", type=click.IntRange(1), default=_TRAINING.rank, show_default=True),
    click.option("--batch-size", type=click.IntRange(1), default=_TRAINING.batch_size, show_default=True),
    click.option(
        "--max-length",
        type=click.IntRange(1),
        default=_TRAINING.max_length,
        show_default=True,
        help="Longest row that is learned, prompt and reply, in tokens; longer ones are left out and counted.",
    ),
    click.option("--epochs", type=float, default=_EPOCHS, show_default=True, help="Of generators and single models."),
    click.option("--critic-epochs", type=float, default=_EPOCHS, show_default=True),
    click.option("--lr", type=float, help="Learning rate of generators; by default what suits the method."),
    click.option("--critic-lr", type=float, help="Learning rate of critics; by default that of the generators."),
    click.option("--measured", type=click.IntRange(0), default=100, show_default=True, help="Questions for diversity."),
    json_option(),
)


def _with(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@command.command("train")
@_with(*_QUESTIONS, *_SOCIETY)
def train_command(*, as_json: bool, **options: Any) -> None:
    """Debate, take the consensus as the label, finetune each agent on its own data, test; then again.

    \b
    Examples:
      cmat-graph society train --out society --iterations 2
      cmat-graph society train --out mine --tasks questions.jsonl --pack gsm8k --base Qwen/Qwen3-0.6B --lr 2e-4
    """
    from cmat_graph.society import reproduce

    methods = ("samples", "debate", "maft")
    _tell(reproduce(_setup(options), methods=methods, stages=progress), options["out"], as_json=as_json)


@command.command("reproduce")
@_with(
    *_QUESTIONS,
    *_SOCIETY,
    click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Repetitions."),
    click.option("--methods", help="Only these, separated by commas; see the table that is printed for their names."),
)
def reproduce_command(*, as_json: bool, seeds: int, methods: str | None, **options: Any) -> None:
    """Compare all methods of the paper, its ablations, and the controls that it lacks.

    The curves over --iterations are those of multiagent and of single-agent finetuning.

    \b
    Examples:
      cmat-graph society reproduce --out report --seeds 3 --iterations 5
      cmat-graph society reproduce --out report --methods samples,debate,maft,single_ft
    """
    from cmat_graph.society import METHODS, reproduce, require_plots

    require_plots()
    chosen = tuple(name.strip() for name in methods.split(",") if name.strip()) if methods else tuple(METHODS)
    found = reproduce(_setup(options), methods=chosen, seeds=seeds, stages=progress)
    _tell(found, options["out"], as_json=as_json)


@command.command("evaluate")
@_with(
    click.argument("folder", type=click.Path(exists=True, file_okay=False)),
    *_QUESTIONS,
    click.option("--iteration", type=click.IntRange(1), help="After which one; by default the last."),
    click.option("--society-seed", type=click.IntRange(0), default=0, show_default=True, help="Which repetition."),
    json_option(),
)
def evaluate_command(*, folder: str, iteration: int | None, society_seed: int, as_json: bool, **options: Any) -> None:
    """Measure a trained society on questions of your choice, beside its untrained base with as many calls.

    \b
    Example:
      cmat-graph society evaluate society --tasks other.jsonl --test-split all
    """
    from cmat_graph.society.evaluating import evaluate_society

    env, test = _open(options, options["test_split"], options["test_count"])
    found = evaluate_society(folder, env=env, test=test, iteration=iteration, seed=society_seed, stages=progress)
    if as_json:
        print_json(found.to_json())
        return
    from rich.console import Console

    Console().print(found.table().to_rich())


def _open(options: dict[str, Any], split: str, count: int) -> tuple[Any, list[Any]]:
    from cmat_graph.envs import load_env

    env = load_env(options["env_name"], tasks=options["tasks"], size=options["size"], seed=options["seed"])
    return env, list(env.tasks(None if split == "all" else split))[:count]


def _setup(options: dict[str, Any]) -> Setup:
    from cmat_graph.debate.prompts import fitting_pack
    from cmat_graph.society import Setup, SocietySettings
    from cmat_graph.tuning.debates import DebateSetSettings

    if options["train_split"] == options["test_split"]:
        raise ConfigurationError("a society is measured on other questions than it learns from; give another split")
    env, test = _open(options, options["test_split"], options["test_count"])
    _, train = _open(options, options["train_split"], options["train_count"])
    generator = TrainSettings(
        method=options["method"],
        rank=options["rank"],
        batch_size=options["batch_size"],
        max_length=options["max_length"],
        epochs=options["epochs"],
        learning_rate=options["lr"],
    )
    society = {
        name: options[name]
        for name in (
            "agents", "rounds", "iterations", "start", "temperature", "top_p", "max_tokens", "measured",
        )
    }  # fmt: skip
    pack = fitting_pack(env, [*train, *test], options["pack"] or "")
    preference = replace(
        SocietySettings().preference,
        method=generator.method,
        rank=generator.rank,
        batch_size=generator.batch_size,
        max_length=generator.max_length,
    )
    settings = SocietySettings(
        **society,
        generator=generator,
        preference=preference,
        critic=replace(generator, epochs=options["critic_epochs"], learning_rate=options["critic_lr"] or options["lr"]),
        sets=DebateSetSettings(
            mixing=options["mixing"],
            w=options["w"],
            loss=options["loss"],
            minimum_agreement=options["minimum_agreement"],
        ),
    )
    return Setup(
        folder=Path(options["out"]),
        env=env,
        train=train,
        test=test,
        base=options["base"],
        pack=pack,
        settings=settings,
    )


def _tell(found: Findings, out: str, *, as_json: bool) -> None:
    from cmat_graph.errors import MissingExtraError
    from cmat_graph.society import save_findings

    try:
        files = ", ".join(file.name for file in save_findings(found, Path(out)))
    except MissingExtraError as exc:  # a society is trained without plots all the same
        files = f"result.json, table.md; no plots: {exc}"
    if as_json:
        print_json(found.to_json())
    else:
        from rich.console import Console

        screen = Console()
        for table in found.tables():
            screen.print(table.to_rich())
    console.print(f"in {out}: {files}", soft_wrap=True)
