"""`cmat-graph dataset export`: write a dataset for another trainer."""

from __future__ import annotations

from pathlib import Path

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.shared import json_option

FORMS = ("llamafactory", "alpaca", "openai", "trl", "swift", "rllm", "agentinstruct")
"""As in `cmat_graph.tuning.interchange`, which a test compares: help does not wait for it."""


@click.command("export")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMS), required=True, help="Whose form.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--name", default="cmat", show_default=True, help="What LLaMA-Factory calls the dataset.")
@json_option()
def export_command(*, dataset: Path, form: str, out: Path, name: str, as_json: bool) -> None:
    """Write DATASET in the form of another trainer. What that form cannot hold is told.

    \b
    Examples:
      cmat-graph dataset export dataset --format openai --out openai
      cmat-graph dataset export dataset --format llamafactory --out LLaMA-Factory/data --name agent
    """
    from cmat_graph.tuning.dataset import Dataset
    from cmat_graph.tuning.interchange import export

    files = export(Dataset(dataset), out, form, name=name)
    if as_json:
        print_json([str(file) for file in files])
        return
    for file in files:
        click.echo(file)
