"""An experiment's finding as files: `result.json`, `table.md`, `plot.svg`, `plot.png`, `index.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from cmat_graph.experiments.results import Result
from cmat_graph.records import write_json
from cmat_graph.report import write_page

QUESTIONS: Mapping[str, str] = {
    "loop": "What does tuning bring, and what does the loop bring on top of it?",
    "mix": "What do agent-specific and general instructions bring, alone and mixed?",
    "parts": "What is each part of the loop worth?",
}


def require_plots() -> Any:
    """Return the module that draws; call it before hours of work.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    return import_module("cmat_graph.report.plots")


def save_result(result: Result, folder: Path) -> list[Path]:
    """Write tables, plots and a page into a folder; return the files.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    plots = require_plots()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ("result.json", "table.md", "plot.svg", "plot.png", "index.html")]
    write_json(files[0], result.to_json())
    tables = result.tables()
    files[1].write_text("\n\n".join(table.to_markdown() for table in tables) + "\n", encoding="utf-8")
    for file in files[2:4]:
        plots.draw_bars(file, result.bars(), title=result.title)
    write_page(
        files[4],
        title=QUESTIONS.get(result.kind, result.kind),
        tables=tables,
        plots=[files[2]],
        details=json.dumps(result.settings, indent=1, ensure_ascii=False),
    )
    return files
