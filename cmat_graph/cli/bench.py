"""`cmat-graph bench`: run a benchmark of the checkout. They live in `benchmarks/`, outside the installed package."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import click

import cmat_graph
from cmat_graph.cli import print_json
from cmat_graph.cli.shared import json_option
from cmat_graph.errors import ConfigurationError


@click.command("bench")
@click.argument("name")
@json_option()
def command(*, name: str, as_json: bool) -> None:
    """Run the benchmark NAME: one line for each figure, with its target.

    \b
    Example:
      cmat-graph bench startup --json
    """
    folder = Path(cmat_graph.__file__).parents[1] / "benchmarks"
    known = sorted(file.stem for file in folder.glob("*.py"))
    if name not in known:
        told = ", ".join(known) or "none here: benchmarks need a checkout of the project"
        raise ConfigurationError(f"no benchmark {name!r}; known: {told}")
    for figure in _load(folder / f"{name}.py").measure():
        if as_json:
            print_json(figure)
        else:
            mark = "ok" if figure["ok"] else "MISSED"
            click.echo(f"{figure['metric']}: {figure['value']} (target {figure['target']}) {mark}")


def _load(file: Path) -> Any:
    """Import a benchmark by its path; it is registered, since annotations are looked up in their module."""
    spec = spec_from_file_location(f"cmat_bench_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
