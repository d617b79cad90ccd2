"""One page of HTML that holds everything itself: tables as text, plots as drawings. It needs no network."""

from __future__ import annotations

import base64
import html
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from cmat_graph.report.tables import Table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #e3e3e3 }
th:first-child, td:first-child { text-align: left }
th { border-bottom: 2px solid #999; font-weight: 600 }
.note { color: #666; font-size: .9rem; max-width: 45rem } img { max-width: 100%; height: auto }
pre { background: #f5f5f5; padding: .8rem; overflow: auto; font-size: .85rem }
"""


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    text: Sequence[str] = (),
    tables: Sequence[Table] = (),
    plots: Sequence[str | os.PathLike[str]] = (),
    details: str = "",
) -> None:
    """Write a report as one file, aside and then in its place.

    Args:
        path: The file.
        title: Its heading.
        text: Paragraphs in front.
        tables: In their order.
        plots: Files with `.svg` or `.png`, which are copied into the page.
        details: Shown as it is at the end, such as the settings.

    """
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(each)}</p>" for each in text)]
    parts += [f'<img alt="{html.escape(Path(plot).stem)}" src="{_inline(Path(plot))}">' for plot in plots]
    parts += [table.to_html() for table in tables]
    if details:
        parts.append(f"<h2>Details</h2><pre>{html.escape(details)}</pre>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    target = Path(path)
    aside = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    body = "\n".join(parts)
    aside.write_text(f"<!doctype html>\n<html lang=en>{head}\n<body>\n{body}\n</body></html>\n", encoding="utf-8")
    os.replace(aside, target)


def _inline(plot: Path) -> str:
    kind = "image/svg+xml" if plot.suffix == ".svg" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(plot.read_bytes()).decode()}"
