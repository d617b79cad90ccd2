"""`cmat-graph prompts`: show the nodes' prompts, and copy them out to be changed."""

from __future__ import annotations

from pathlib import Path

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.shared import json_option
from cmat_graph.errors import ConfigurationError
from cmat_graph.nodes.calling import PROMPTED, Prompt


@click.command("prompts")
@click.argument("node", required=False, type=click.Choice(PROMPTED))
@click.option("--export", "folder", help="Copy the prompts into this folder, one NODE.md each, to change them there.")
@json_option()
def command(*, node: str | None, folder: str | None, as_json: bool) -> None:
    """Show the system prompts of the nodes, or the one of NODE, with their versions.

    Change a copy and give its folder to `create_cmat_graph(prompts=...)` or `cmat-graph run --prompts`; a file that
    is not there leaves that node's own prompt.

    \b
    Examples:
      cmat-graph prompts checker
      cmat-graph prompts --export my-prompts
    """
    shown = [(name, Prompt(name)) for name in PROMPTED if node in (None, name)]
    if folder is not None:
        _export(Path(folder), shown)
    for name, prompt in shown:
        if as_json:
            print_json({"node": name, "version": prompt.version, "text": prompt.text})
        elif folder is None:
            click.secho(prompt.version, bold=True)
            click.echo(prompt.text)


def _export(folder: Path, prompts: list[tuple[str, Prompt]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompt in prompts:
        file = folder / f"{name}.md"
        if file.exists():
            raise ConfigurationError(f"{file} is there already; give another folder, or move it away")
        file.write_text(prompt.text, encoding="utf-8")
        click.echo(f"written: {file}", err=True)
