"""`cmat-graph demo`: the whole loop."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.shared import arms_json, arms_table, console, json_option, progress
from cmat_graph.demo import FULL, QUICK, run_demo


@click.command("demo")
@click.option("--dir", "directory", default="./cmat-demo", show_default=True, help="Everything made lies here.")
@click.option(
    "--base", default="nano", show_default=True, help="The base to distil into: nano, a model folder, a hub id."
)
@click.option("--quick", is_flag=True, help="Fewer tasks and steps: shows that all works, not how well.")
@json_option()
def command(*, directory: str, base: str, quick: bool, as_json: bool) -> None:
    """Play tasks, record them, distil them, swap the node, measure: all offline, in one directory.

    \b
    Example:
      cmat-graph demo --dir ./cmat-demo
    """
    start = time.monotonic()
    result = run_demo(Path(directory), size=QUICK if quick else FULL, base=base, stages=progress)
    gain = result.gain
    console.print()
    if as_json:
        print_json({"arms": arms_json(result.arms)})
    else:
        from rich.console import Console

        Console().print(arms_table(result.arms, "Held-out database tasks"))
    console.print(f"Tuned against base on these tasks: {gain.mean:+.1%} ± {gain.stderr:.1%} (paired).")
    quickly = " A quick demo trains too little for that." if quick and not result.gate.better else ""
    console.print(f"The gate, on other held-out tasks: {result.gate.verdict}.{quickly}")
    console.print(
        f"\n{time.monotonic() - start:.0f} s. In {directory}:\n"
        f"  traces.db      every step and episode (SQLite)\n"
        f"  reflections/   {result.lessons} lessons in Chroma\n"
        f"  adapters/      {result.card.id}, its card and its dataset\n"
        f"  evaluation.json  the table above\n"
        f"Try next:\n"
        f"  cmat-graph traces show --traces sqlite:///{directory}/traces.db --run tuned --failed\n"
        f"  cmat-graph run --assistant {base} --adapter assistant --adapters {directory}/adapters --tasks YOUR.jsonl\n"
        f"  cmat-graph distill --traces sqlite:///{directory}/traces.db --run expert --base Qwen/Qwen3-0.6B --lr 2e-4",
        soft_wrap=True,
    )
