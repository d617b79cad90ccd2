"""`cmat-graph distill`: from traces to an adapter, and through the gate."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import click
from click.core import ParameterSource

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.cli import print_json
from cmat_graph.cli.harvesting import harvest_options, held_out_option, read_held_out, to_harvest_settings
from cmat_graph.cli.shared import console, json_option, open_traces, progress
from cmat_graph.cli.training import to_train_settings, train_options
from cmat_graph.errors import LeakError
from cmat_graph.tuning import distill
from cmat_graph.tuning.distill import tasks_of
from cmat_graph.tuning.sources import NODES

VALIDATION = "validation"


@click.command("distill")
@click.option("--traces", "traces_url", default="sqlite:///traces.db", show_default=True, help="Trace database.")
@click.option("--dataset", type=click.Path(), help="A dataset made before, to train its node on; harvests nothing.")
@click.option(
    "--base", default="nano", show_default=True, help="nano, a model folder, or a hub id such as Qwen/Qwen3-0.6B."
)
@click.option("--name", help="Name of the adapter; by default a hash of data, base and settings.")
@click.option("--adapters", "adapters_dir", default="adapters", show_default=True, help="Adapter registry.")
@click.option("--init", help="Adapter to go on from, of the same base and method.")
@click.option(
    "--gate/--no-gate",
    "gated",
    default=None,
    help="Promote it if it is better.  [default: where its tasks can be played]",
)
@click.option("--gate-env", default="database", show_default=True, help="Environment of the gate.")
@click.option("--tasks", default="builtin", show_default=True, help="The gate's tasks: JSONL file, or 'builtin'.")
@click.option("--size", type=click.IntRange(1), default=512, show_default=True, help="How many built-in tasks to make.")
@click.option("--task-seed", type=int, default=7, show_default=True, help="Seed of the built-in tasks.")
@click.option(
    "--gate-split", default=VALIDATION, show_default=True, help="The training tasks kept to choose by, or a split."
)
@click.option("--gate-limit", type=click.IntRange(1), help="At most so many of them.")
@harvest_options
@held_out_option
@train_options
@json_option()
def command(
    *,
    traces_url: str,
    dataset: str | None,
    base: str,
    name: str | None,
    adapters_dir: str,
    init: str | None,
    gated: bool | None,
    held_out: tuple[str, ...],
    as_json: bool,
    **choice: Any,
) -> None:
    """Harvest successful episodes, train an adapter on them, register it, and promote it if the gate finds it better.

    Killed, the same command goes on. Under torchrun the processes share the work:
    torchrun --nproc_per_node 2 -m cmat_graph.cli distill ...

    \b
    Examples:
      cmat-graph distill --traces sqlite:///traces.db --run expert
      cmat-graph distill --base Qwen/Qwen3-0.6B --lr 2e-4 --epochs 3
      cmat-graph distill --dataset checks --no-gate     # for the node that the dataset was made for
      cmat-graph distill --objective dpo --init assistant/1a2b3c4d
    """
    registry = AdapterRegistry(adapters_dir)
    settings, harvest = to_train_settings(choice), to_harvest_settings(choice)
    chosen = click.get_current_context().get_parameter_source("node") is not ParameterSource.DEFAULT
    kept_out = read_held_out(held_out, harvest.env)
    begun = registry.get(init) if init else None
    first = os.environ.get("RANK", "0") == "0"
    with progress(f"{settings.method} on {base}") if first else nullcontext(_quiet) as show:
        card = distill(
            None if dataset else open_traces(traces_url),
            registry,
            node=harvest.node if chosen else None,
            base=base,
            name=name,
            harvest=harvest,
            settings=settings,
            dataset=dataset,
            init=begun,
            held_out=kept_out,
            progress=lambda step, steps, loss: show(step, steps, f"loss {loss:.3f}"),
        )
    if not first:
        return
    for reason, count in card.counts.items():
        if count:
            console.print(f"{count:7,} {reason}")
    if gated is not False:
        card = _gate(card, registry, demanded=bool(gated), **choice)
    if as_json:
        print_json(asdict(card))
        return
    ends = f", loss {card.loss[0]:.3f} to {card.loss[-1]:.3f}" if card.loss else ""
    click.echo(f"{card.id}: {card.examples} examples{ends}, {card.seconds:.0f} s, in {card.folder}")
    click.echo(card.verdict)
    if card.node in NODES:  # `evaluate` has a seat for it
        told = f"--base {base} --adapter {card.id} --adapters {adapters_dir}"
        console.print(f"measure it: cmat-graph evaluate {told}", soft_wrap=True)


def _gate(
    card: AdapterCard,
    registry: AdapterRegistry,
    *,
    demanded: bool,
    gate_env: str,
    tasks: str,
    size: int,
    task_seed: int,
    gate_split: str,
    gate_limit: int | None,
    **other: Any,
) -> AdapterCard:
    """Let the gate decide, where the environment has the tasks that the adapter learned from."""
    from cmat_graph.envs import load_env
    from cmat_graph.gate import gate, settle
    from cmat_graph.splits import validation_tasks

    env = load_env(gate_env, tasks=tasks, size=size, seed=task_seed)
    known = {task.id for task in env.tasks()}
    share = float(card.harvest.get("validation_share", other["validation_share"]))
    held = validation_tasks(env.tasks(), share) if gate_split == VALIDATION else env.tasks(gate_split)
    if not demanded and (not held or not known & tasks_of(card)):
        console.print(
            "not gated: it learned from other tasks than these; name them with --tasks, --size, --task-seed",
            soft_wrap=True,
        )
        return card
    try:
        with progress("Gate", 2 * len(held[:gate_limit])) as show:
            result = gate(card, held[:gate_limit], env=env, registry=registry, report=show)
    except LeakError as exc:  # its dataset was divided in another way
        if demanded:
            raise
        console.print(f"not gated: {exc}", soft_wrap=True)
        return card
    return settle(registry, result)


def _quiet(*told: object) -> None:
    """Show nothing: the first process does."""
