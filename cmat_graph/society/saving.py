"""A comparison as files: `result.json`, `table.md`, plots, `index.html`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from cmat_graph.records import write_json
from cmat_graph.report import Estimate, write_page
from cmat_graph.report.estimates import estimate
from cmat_graph.society.results import MEASURES, Findings, Row, flat

CURVES = ("maft", "single_ft", "single_ft_alone")


def require_plots() -> Any:
    """Return the module that draws; call it before hours of work.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    return import_module("cmat_graph.report.plots")


def save_findings(findings: Findings, folder: Path) -> list[Path]:
    """Write tables, plots and a page into a folder; return the files.

    Raises:
        MissingExtraError: matplotlib is not installed; the tables are written all the same.

    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "result.json", folder / "table.md"]
    write_json(files[0], findings.to_json())
    tables = findings.tables()
    files[1].write_text("\n\n".join(table.to_markdown() for table in tables) + "\n", encoding="utf-8")
    plots = require_plots()
    drawn: list[Path] = []
    bars = {row.title: {"accuracy": row.accuracy} for row in findings.rows if row.iteration <= 1}
    if bars:
        drawn.append(folder / "methods.svg")
        plots.draw_bars(drawn[-1], bars, title="accuracy", label="accuracy")
    curves = {name: rows for name in CURVES if len(rows := findings.curve(name)) > 1}
    if curves:
        drawn.append(folder / "iterations.svg")
        points = {rows[0].title: [(float(r.iteration), r.accuracy) for r in rows] for rows in curves.values()}
        plots.draw_curves(drawn[-1], points, title="accuracy by iteration", label="accuracy", along="iteration")
        for measure, label in MEASURES.items():
            lines = {rows[0].title: _measured(rows, measure) for rows in curves.values() if _measured(rows, measure)}
            if lines:
                drawn.append(folder / f"diversity-{measure.partition('.')[0].replace('_', '-')}.svg")
                plots.draw_curves(drawn[-1], lines, title=label, label=label, along="iteration", shares=False)
    page = folder / "index.html"
    details = json.dumps(findings.setup.describe(), indent=1, ensure_ascii=False)
    write_page(
        page, title="Does a society of small models keep improving?", tables=tables, plots=drawn, details=details
    )
    return [*files, *drawn, page]


def _measured(rows: list[Row], measure: str) -> list[tuple[float, Estimate]]:
    found = []
    for row in rows:
        values = [flat(score.diversity).get(measure) for score in row.scores]
        known = [[value] for value in values if value is not None]
        if known:
            found.append((float(row.iteration), estimate(known)))
    return found
