"""`cmat-graph adapters`: show, compare, promote, roll back, merge, export, calibrate and try trained adapters."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.adapters.card import check_name
from cmat_graph.cli import moving, print_json
from cmat_graph.cli.shared import json_option, open_traces

_FEW = 6
"""Entries of a list that `show` prints."""
_ROOT = click.option("--adapters", "root", default="adapters", show_default=True, help="Adapter registry.")


@click.group("adapters")
def command() -> None:
    """Show, compare, promote, roll back, merge, export, calibrate and try trained adapters.

    \b
    Example:
      cmat-graph adapters list --adapters cmat-demo/adapters
    """


command.add_command(moving.merge_command)
command.add_command(moving.export_command)


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
        score = f"{rate:.1%}, " if rate is not None else ""
        told = f"{card.method} on {card.base}, {card.examples} examples, {card.created}, {score}{card.verdict}"
        click.echo(f"{star} {card.id}  {told}")
    if not cards:
        click.echo("no adapters yet; make one with: cmat-graph distill", err=True)


@command.command("show")
@click.argument("name")
@_ROOT
@json_option()
def show(*, name: str, root: str, as_json: bool) -> None:
    """Print an adapter's card; of long lists the beginning, which --json gives whole.

    \b
    Example:
      cmat-graph adapters show assistant
    """
    values = asdict(AdapterRegistry(root).get(name))
    if as_json:
        print_json(values)
    else:
        click.echo(json.dumps({name: _brief(value) for name, value in values.items()}, indent=1, ensure_ascii=False))


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
    if not card.gate.get("better", True):
        click.echo(f"the gate said of it: {card.verdict}", err=True)


@command.command("rollback")
@click.argument("node", default="assistant")
@_ROOT
@click.option("--why", default="by hand", help="Kept in the history.")
def rollback(*, node: str, root: str, why: str) -> None:
    """Take a NODE's adapter away and put the one before it in its place; under the first there is the base alone.

    \b
    Example:
      cmat-graph adapters rollback assistant
    """
    card = AdapterRegistry(root).rollback(node, why=why)
    click.echo(f"{card.id} is now the {node}'s adapter" if card else f"the {node} is its base alone now")


@command.command("history")
@click.argument("node", default="assistant")
@_ROOT
@json_option()
def show_history(*, node: str, root: str, as_json: bool) -> None:
    """Show what was promoted and rolled back for a NODE, oldest first.

    \b
    Example:
      cmat-graph adapters history assistant
    """
    changes = AdapterRegistry(root).history(node)
    if as_json:
        print_json([asdict(change) for change in changes])
        return
    for change in changes:
        click.echo(f"{change.at}  {change.event}: {change.name or '(the base)'}, {change.why}")
    if not changes:
        click.echo(f"nothing was ever promoted for {node} in {root}", err=True)


@command.command("compare")
@click.argument("first")
@click.argument("second")
@_ROOT
@json_option()
def compare(*, first: str, second: str, root: str, as_json: bool) -> None:
    """Show in what two adapters differ: data, settings, loss, scores.

    \b
    Example:
      cmat-graph adapters compare assistant/round-1 assistant/round-2
    """
    registry = AdapterRegistry(root)
    cards = [registry.get(name) for name in (first, second)]
    left, right = (_flat(asdict(card)) for card in cards)
    rows = {name: (left.get(name), right.get(name)) for name in {**left, **right} if left.get(name) != right.get(name)}
    if as_json:
        print_json({"first": cards[0].id, "second": cards[1].id, "differ": rows})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", cards[0].id, cards[1].id)
    for name, (one, two) in rows.items():
        table.add_row(name, _short(one), _short(two))
    Console().print(table)


def _brief(value: Any) -> Any:
    """Shorten a long list: ids of hundreds of episodes, or a curve."""
    if not isinstance(value, list) or len(value) <= _FEW:
        return value
    return [*value[:_FEW], f"... {len(value)} in all, see --json"]


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Lay out a card line by line; of a curve its ends."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("folder", "name", "created", "episodes", "seconds") and not before:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], float):
            flat[f"{before}{name}"] = [value[0], value[-1]]
        else:
            flat[f"{before}{name}"] = value
    return flat


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


@command.command("calibrate")
@click.argument("name")
@_ROOT
@click.option("--traces", "traces_url", default="sqlite:///traces.db", show_default=True, help="Trace database.")
@click.option("--run", help="Only episodes of this run.")
@click.option("--split", help="Only tasks of this split; by default all but training tasks.")
@json_option()
def calibrate(*, name: str, root: str, traces_url: str, run: str | None, split: str | None, as_json: bool) -> None:
    """Turn how sure an adapter is of a reply into a chance of success, by its recorded episodes.

    Record it alone: where a fallback answered, what the adapter was unsure of is left out.

    \b
    Example:
      cmat-graph run --adapter assistant --split test --traces sqlite:///traces.db
      cmat-graph adapters calibrate assistant --traces sqlite:///traces.db
    """
    from cmat_graph.models.handover.calibrating import calibrate as fit

    done = fit(open_traces(traces_url), AdapterRegistry(root), name, run=run, split=split)
    if as_json:
        print_json({"adapter": done.card.id, **{k: v for k, v in asdict(done).items() if k != "card"}})
        return
    click.echo(f"{done.card.id}: {done.episodes} episodes, {done.success_rate:.1%} solved")
    click.echo(f"expected calibration error  {done.ece_before:.3f} -> {done.ece_after:.3f} (on held-out folds)")
    click.echo(f"Brier score                 {done.brier_before:.3f} -> {done.brier_after:.3f}")


@command.command("trial")
@click.argument("node", default="assistant")
@_ROOT
@json_option()
def trial(*, node: str, root: str, as_json: bool) -> None:
    """Show how the trials of a node's adapters stand, oldest first.

    A trial ends with a roll back, or when you use the adapter you want: `cmat-graph adapters promote`.

    \b
    Example:
      cmat-graph adapters trial assistant
    """
    from cmat_graph.models.handover.ledger import FILE, read_trials
    from cmat_graph.models.handover.referee import TrialResult

    check_name(node)
    accounts = read_trials(AdapterRegistry(root).root / node / FILE)
    results = [TrialResult.of(name, account) for name, account in accounts.items()]
    if as_json:
        print_json([result.to_json() for result in results])
        return
    for result in results:
        click.echo(f"{result.name}: {result.status}, {result.mode}, share {result.share:g}")
        for arm, tally in result.outcomes.items():
            rate = "" if tally.rate is None else f", {tally.rate:.1%}"
            click.echo(f"  {arm:10} {tally.successes} of {tally.episodes} episodes solved{rate}")
        for direction, value in result.evidence.items():
            click.echo(f"  evidence that the candidate is {direction}: {value:g}")
        if result.beside:
            told = ", ".join(f"{count} {what}" for what, count in sorted(result.beside.items()))
            click.echo(f"  in shadow: {told}")
    if not results:
        click.echo(f"no trial of {node} in {root}; begin one with: Trial.load(registry, NAME)", err=True)
