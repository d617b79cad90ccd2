"""`cmat-graph distill`: from traces to an adapter."""

from __future__ import annotations

from dataclasses import asdict

import click

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.cli import print_json
from cmat_graph.cli.shared import console, json_option, progress
from cmat_graph.traces.sql import SQLTraceStore
from cmat_graph.tuning import LoraSettings, distill

_DEFAULT = LoraSettings()


@click.command("distill")
@click.option("--traces", "traces_url", default="sqlite:///traces.db", show_default=True, help="Trace database.")
@click.option("--node", default="assistant", show_default=True, help="The node to train for.")
@click.option(
    "--base", default="nano", show_default=True, help="nano, a model folder, or a hub id such as Qwen/Qwen3-0.6B."
)
@click.option("--name", help="Name of the adapter; by default taken from the dataset's hash.")
@click.option("--adapters", "adapters_dir", default="adapters", show_default=True, help="Adapter registry.")
@click.option("--run", "run_name", help="Only episodes of this run.")
@click.option("--split", default="train", show_default=True, help="Only episodes of this split; 'all' takes all.")
@click.option("--rank", type=click.IntRange(1), default=_DEFAULT.rank, show_default=True)
@click.option("--alpha", type=click.IntRange(1), default=_DEFAULT.alpha, show_default=True)
@click.option("--lr", "learning_rate", type=float, default=_DEFAULT.learning_rate, show_default=True)
@click.option("--epochs", type=float, default=_DEFAULT.epochs, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=_DEFAULT.batch_size, show_default=True)
@click.option("--max-length", type=click.IntRange(1), default=_DEFAULT.max_length, show_default=True)
@click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True)
@json_option()
def command(
    *,
    traces_url: str,
    node: str,
    base: str,
    name: str | None,
    adapters_dir: str,
    run_name: str | None,
    split: str,
    rank: int,
    alpha: int,
    learning_rate: float,
    epochs: float,
    batch_size: int,
    max_length: int,
    seed: int,
    as_json: bool,
) -> None:
    """Harvest successful episodes, train a LoRA on them, and register the adapter.

    \b
    Examples:
      cmat-graph distill --traces sqlite:///traces.db --run expert
      cmat-graph distill --base Qwen/Qwen3-0.6B --lr 2e-4 --epochs 3
    """
    settings = LoraSettings(
        rank=rank,
        alpha=alpha,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )
    traces = SQLTraceStore(traces_url)
    with progress(f"LoRA for {node} on {base}") as show:
        card = distill(
            traces,
            AdapterRegistry(adapters_dir),
            node=node,
            base=base,
            name=name,
            run=run_name,
            split=None if split == "all" else split,
            settings=settings,
            progress=lambda step, steps, loss: show(step, steps, f"loss {loss:.3f}"),
        )
    for reason, count in card.counts.items():
        console.print(f"{count:7,} {reason}")
    if as_json:
        print_json(asdict(card))
    else:
        ends = f", loss {card.loss[0]:.3f} to {card.loss[-1]:.3f}" if card.loss else ""
        click.echo(f"{card.id}: {card.examples} examples{ends}, {card.seconds:.0f} s, in {card.folder}")
        console.print(f"measure it: cmat-graph evaluate --base {base} --adapter {card.id} --adapters {adapters_dir}")
