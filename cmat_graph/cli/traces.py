"""`cmat-graph traces`: look at what was recorded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.imports import import_command
from cmat_graph.cli.shared import json_option, open_traces, visible
from cmat_graph.diagnosis import diagnose
from cmat_graph.errors import ConfigurationError
from cmat_graph.types import Episode

_URL = click.option("--traces", "traces_url", default="sqlite:///traces.db", show_default=True, help="Trace database.")


@click.group("traces")
def command() -> None:
    """Look at what was recorded.

    \b
    Example:
      cmat-graph traces list --traces sqlite:///cmat-demo/traces.db
    """


command.add_command(import_command)


@command.command("list")
@_URL
@json_option()
def list_runs(*, traces_url: str, as_json: bool) -> None:
    """List the runs: episodes, solved ones, steps and tokens.

    \b
    Example:
      cmat-graph traces list
    """
    runs = open_traces(traces_url).runs()
    if as_json:
        print_json(runs)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("run", "environment")
    for name in ("episodes", "solved", "steps", "tokens"):
        table.add_column(name, justify="right")
    for row in runs:
        table.add_row(
            escape(row["run"]), escape(row["env"]), *(f"{row[k]:,}" for k in ("episodes", "solved", "steps", "tokens"))
        )
    Console().print(table)


@command.command("show")
@click.argument("task", required=False)
@_URL
@click.option("--run", "run_name", help="Only episodes of this run.")
@click.option("--failed", is_flag=True, help="Only episodes that were not solved.")
@click.option("--limit", type=click.IntRange(1), default=3, show_default=True, help="At most this many episodes.")
@json_option()
def show(*, task: str | None, traces_url: str, run_name: str | None, failed: bool, limit: int, as_json: bool) -> None:
    """Print episodes turn by turn, all or those of one TASK id; a failed one is headed by the tags of why.

    \b
    Example:
      cmat-graph traces show --run tuned --failed --limit 1
    """
    shown = 0
    for episode in open_traces(traces_url).episodes(run=run_name, solved=False if failed else None):
        if task is not None and task not in (episode.task.id, episode.id):
            continue
        if as_json:
            print_json(asdict(episode))
        else:
            _print(episode)
        shown += 1
        if shown == limit:
            return
    if not shown:
        raise ConfigurationError("no such episode; list the runs with: cmat-graph traces list")


def _print(episode: Episode) -> None:
    reward = "unfinished" if episode.reward is None else f"reward {episode.reward:g}"
    tags = "".join(f", {tag}" for tag in diagnose(episode))
    _say(f"{episode.task.id} ({episode.run}): {reward}, {episode.stopped}{tags}", bold=True)
    _say(episode.task.prompt)
    for step in episode.steps:
        _say(f"  [{step.attempt}.{step.index} {step.node} {step.model} {step.adapter}".rstrip() + "]", fg="cyan")
        _say("\n".join(f"  {line}" for line in step.completion.splitlines()))
        if step.before and (step.before["decision"] != "approve" or step.before["source"] == "limit"):
            _say(f"  checker: {step.before['reason']} {step.before['hint']}", fg="yellow")
        if step.observation:
            _say(f"  -> {step.observation}", fg="red" if step.observation_error else None)
        if step.after and step.after["decision"] != "approve":
            _say(f"  checker: {step.after['reason']} {step.after['hint']}", fg="yellow")
    for reflection in episode.reflections:
        _say(f"  lesson {reflection.attempt}: {reflection.text}", fg="magenta")
    if episode.error:
        _say(f"  error: {episode.error}", fg="red")
    click.echo()


def _say(text: str, **style: Any) -> None:
    click.secho(visible(text), **style)
