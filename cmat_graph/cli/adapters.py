"""`cmat-graph adapters`: show and promote trained adapters."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.cli import print_json
from cmat_graph.cli.shared import json_option

_ROOT = click.option("--adapters", "root", default="adapters", show_default=True, help="Adapter registry.")


@click.group("adapters")
def command() -> None:
    """Show and promote trained adapters.

    \b
    Example:
      cmat-graph adapters list --adapters cmat-demo/adapters
    """


@command.command("list")
@_ROOT
@json_option()
def list_adapters(*, root: str, as_json: bool) -> None:
    """List adapters, oldest first; a star marks the promoted ones.

    \b
    Example:
      cmat-graph adapters list
    """
    registry = AdapterRegistry(root)
    cards = registry.list()
    if as_json:
        print_json([asdict(card) for card in cards])
        return
    for card in cards:
        star = "*" if registry.current(card.node) == card.name else " "
        rate = card.scores.get("tuned", {}).get("success_rate")
        score = f"{rate:.1%}" if rate is not None else "not measured"
        click.echo(f"{star} {card.id}  base {card.base}, {card.examples} examples, {card.created}, {score}")
    if not cards:
        click.echo("no adapters yet; make one with: cmat-graph distill", err=True)


@command.command("show")
@click.argument("name")
@_ROOT
def show(*, name: str, root: str) -> None:
    """Print an adapter's card.

    \b
    Example:
      cmat-graph adapters show assistant
    """
    click.echo(json.dumps(asdict(AdapterRegistry(root).get(name)), indent=1, ensure_ascii=False))


@command.command("promote")
@click.argument("name")
@_ROOT
def promote(*, name: str, root: str) -> None:
    """Make an adapter the current one of its node.

    \b
    Example:
      cmat-graph adapters promote assistant/1a2b3c4d
    """
    registry = AdapterRegistry(root)
    card = registry.get(name)
    registry.promote(card)
    click.echo(f"{card.id} is now the {card.node}'s adapter")
