"""`cmat-graph traces import`: read what another tool recorded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.shared import console, json_option

FORMS = ("langsmith", "langfuse", "agentinstruct")
"""As in `cmat_graph.traces.imports`, which a test compares: help does not wait for it."""


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMS), required=True, help="Who wrote it.")
@click.option("--traces", "traces_url", default="sqlite:///traces.db", show_default=True, help="Trace database.")
@click.option("--run", default="imported", show_default=True, help="Label of the episodes.")
@click.option("--env", default="", help="Their environment; by default what the records tell.")
@click.option("--split", default="train", show_default=True, help="Their split; only train is ever trained on.")
@click.option("--node", default="", help="Seat of every model call; by default what the records tell, or `model`.")
@click.option("--reward-key", default="", help="Score or feedback that is the reward; by default the only one.")
@click.option("--reward-scale", type=float, default=1.0, show_default=True, help="The best value of that score.")
@click.option("--reward", type=float, help="Reward of episodes that tell none.")
@json_option()
def import_command(*, source: Path, form: str, traces_url: str, as_json: bool, **told: Any) -> None:
    """Read SOURCE, a file (JSON lines, JSON, Parquet) or a folder of them, into the trace database.

    \b
    Examples:
      cmat-graph traces import runs.jsonl --format langsmith --reward-key correctness
      cmat-graph traces import langfuse-export/ --format langfuse --env shop
      cmat-graph traces import AgentInstruct/data --format agentinstruct
    """
    from cmat_graph.traces.imports import ImportSettings, import_traces
    from cmat_graph.traces.sql import SQLTraceStore

    done = import_traces(source, SQLTraceStore(traces_url), form=form, settings=ImportSettings(**told))
    for reason, count in done.left_out.items():
        console.print(f"left out: {count} {reason}")
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{done.episodes} episodes with {done.steps} model calls in {traces_url}")
