"""`cmat-graph improve`: rounds of playing, training and gating."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.cli import print_json
from cmat_graph.cli.harvesting import to_harvest_settings
from cmat_graph.cli.shared import console, json_option, progress
from cmat_graph.cli.training import shaping_options, to_train_settings, train_options
from cmat_graph.improve import Improved, ImproveSettings

_DEFAULT = ImproveSettings()


@click.command("improve")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False),
    default="improved",
    show_default=True,
    help="Everything made lies here.",
)
@click.option("--rounds", type=click.IntRange(1), default=_DEFAULT.rounds, show_default=True)
@click.option("--nodes", default="assistant", show_default=True, help="Seats to train, such as assistant,checker.")
@click.option("--base", default="nano", show_default=True, help="nano, a model folder, or a hub id.")
@click.option("--teacher", help="Plays what the model cannot solve: expert, or provider:model. Without: STaR.")
@click.option("--samples", type=click.IntRange(1), default=_DEFAULT.samples, show_default=True, help="Plays of a task.")
@click.option(
    "--temperature", type=float, default=_DEFAULT.temperature, show_default=True, help="Of plays after the first."
)
@click.option("--attempts", type=click.IntRange(1), default=_DEFAULT.attempts, show_default=True)
@click.option(
    "--start",
    type=click.Choice(["base", "previous"]),
    default=_DEFAULT.start,
    show_default=True,
    help="What each training begins from.",
)
@click.option(
    "--data",
    type=click.Choice(["all", "round"]),
    default=_DEFAULT.data,
    show_default=True,
    help="Whose episodes each training takes.",
)
@click.option(
    "--gate-alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=_DEFAULT.alpha,
    show_default=True,
    help="Chance that an adapter which is no better passes the gate.",
)
@click.option("--env", "env_name", default="database", show_default=True, help="Environment to play in.")
@click.option("--tasks", default="builtin", show_default=True, help="JSONL task file, or 'builtin'.")
@click.option("--size", type=click.IntRange(1), default=512, show_default=True, help="How many built-in tasks to make.")
@click.option("--task-seed", type=int, default=7, show_default=True, help="Seed of the built-in tasks.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Training tasks of a round at most.")
@click.option("--test-split", default="test", show_default=True, help="Tasks of the curve; 'none' leaves it out.")
@click.option("--test-limit", type=click.IntRange(1), default=100, show_default=True, help="So many of them at most.")
@click.option("--adapters", "adapters_dir", help="Adapter registry.  [default: DIR/adapters]")
@click.option("--concurrency", type=click.IntRange(1), default=16, show_default=True, help="Tasks in flight.")
@train_options
@shaping_options
@json_option()
def command(
    *,
    directory: str,
    rounds: int,
    nodes: str,
    base: str,
    teacher: str | None,
    samples: int,
    temperature: float,
    attempts: int,
    start: Any,
    data: Any,
    gate_alpha: float,
    env_name: str,
    tasks: str,
    size: int,
    task_seed: int,
    limit: int,
    test_split: str,
    test_limit: int,
    adapters_dir: str | None,
    concurrency: int,
    as_json: bool,
    **choice: Any,
) -> None:
    """Play, harvest, train, gate and swap, round after round, and draw the curve on held-out tasks.

    Each round plays the training tasks with what is promoted, learns from the successes, and promotes the new adapter
    only if it is better on tasks that nobody learned from. Stopped or killed, the same command goes on.

    \b
    Examples:
      cmat-graph improve --rounds 3 --size 256
      cmat-graph improve --rounds 3 --teacher expert --nodes assistant,checker
      cmat-graph improve --rounds 1 --objective dpo --start previous --adapters adapters
    """
    settings = ImproveSettings(
        rounds=rounds,
        nodes=tuple(node.strip() for node in nodes.split(",")),
        samples=samples,
        temperature=temperature,
        attempts=attempts,
        tasks=limit,
        start=start,
        data=data,
        alpha=gate_alpha,
        harvest=to_harvest_settings(choice | {"split": "train", "env": env_name}),
        train=to_train_settings(choice),
    )
    from cmat_graph.envs import load_env
    from cmat_graph.improve import improve
    from cmat_graph.models import load_model

    env = load_env(env_name, tasks=tasks, size=size, seed=task_seed)
    with ExitStack() as stack:
        shown: dict[str, Any] = {}

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in shown:
                stack.close()
                shown[stage] = stack.enter_context(progress(stage, total))
            shown[stage](done, total, note)

        improved = improve(
            Path(directory),
            env=env,
            base=base,
            settings=settings,
            teacher=load_model(teacher, demonstrations=env.demonstrations) if teacher else None,
            test=[] if test_split == "none" else env.tasks(test_split)[:test_limit],
            registry=AdapterRegistry(adapters_dir) if adapters_dir else None,
            concurrency=concurrency,
            report=report,
        )
    if as_json:
        print_json(improved.to_json())
    else:
        _print(improved, rounds)


def _print(improved: Improved, rounds: int) -> None:
    from rich.console import Console
    from rich.table import Table

    for notes in improved.rounds[:rounds]:
        plays = notes["collect"]
        taught = f", {plays['taught']} by the teacher" if plays["taught"] else ""
        console.print(f"round {notes['round']}: {plays['solved']} of {plays['tasks']} tasks solved{taught}")
        for node, told in notes["nodes"].items():
            console.print(f"  {node} {told['adapter']}: {told['verdict']}", soft_wrap=True)
    if not improved.curve:
        return
    table = Table(title=f"{improved.curve[0].n} held-out tasks")
    table.add_column("after round")
    for name in ("success", "± s.e.", "gain", "± s.e.", "p"):
        table.add_column(name, justify="right")
    for point in improved.curve:
        table.add_row(
            str(point.round) if point.round else "(beginning)",
            f"{point.success_rate:.1%}",
            f"{point.stderr:.1%}",
            f"{point.gain:+.1%}",
            f"{point.gain_stderr:.1%}",
            f"{point.p:.2g}",
        )
    Console().print(table)
