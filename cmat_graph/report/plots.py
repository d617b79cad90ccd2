"""Plots with error bars, drawn with matplotlib (extra `report`). No window is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

from cmat_graph.errors import MissingExtraError
from cmat_graph.report.estimates import Estimate

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
except ImportError as exc:
    raise MissingExtraError.of("report", exc) from exc

COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#a463f2", "#6cc5b0")
"""Told apart by readers with any colour vision."""
INK, FAINT = "#333333", "#e3e3e3"
SMALL = 9.5
REPEATABLE = {"svg.hashsalt": "cmat-graph", "svg.fonttype": "none"}
"""The same figures give the same file, and words in it stay words."""


def draw_bars(
    path: str | PathLike[str],
    bars: Mapping[str, Mapping[str, Estimate]],
    *,
    title: str = "",
    label: str = "success rate",
) -> None:
    """Draw one group of bars for each arm, one bar for each measure, with one standard error each way.

    Args:
        path: Where to; the ending chooses the format, such as `.svg` or `.png`.
        bars: Arm to measure to estimate, as shares in 0..1; an arm may lack a measure.
        title: What is shown.
        label: What the shares are of.

    """
    measures = list(dict.fromkeys(name for each in bars.values() for name in each))
    width = 0.78 / max(1, len(measures))
    figure, axes = _blank(title, width=2.2 + 0.5 * len(bars) * max(1.6, len(measures)))
    for at, measure in enumerate(measures):
        places = [row for row, arm in enumerate(bars) if measure in bars[arm]]
        found = [bars[arm][measure] for arm in bars if measure in bars[arm]]
        middle = [place + (at - (len(measures) - 1) / 2) * width for place in places]
        heights = [each.mean for each in found]
        axes.bar(middle, heights, width * 0.92, color=COLOURS[at % len(COLOURS)], label=measure, zorder=2)
        axes.errorbar(
            middle, heights, [each.stderr for each in found], fmt="none", ecolor=INK, elinewidth=1, capsize=3, zorder=3
        )
        for x, each in zip(middle, found, strict=True):
            axes.annotate(
                f"{100 * each.mean:.1f}",
                (x, each.mean + each.stderr),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=SMALL,
                color=INK,
            )
    axes.set_xticks(range(len(bars)), list(bars))
    axes.set_ylabel(label, fontsize=SMALL, color=INK)
    _as_shares(axes, [each for group in bars.values() for each in group.values()])
    if len(measures) > 1:
        _add_legend(axes, len(measures))
    _save(figure, path)


def draw_curves(
    path: str | PathLike[str],
    curves: Mapping[str, Sequence[tuple[float, Estimate]]],
    *,
    title: str = "",
    label: str = "success rate",
    along: str = "round",
    shares: bool = True,
) -> None:
    """Draw curves with a band of one standard error each way, such as success over rounds or loss over steps.

    Args:
        path: Where to; the ending chooses the format.
        curves: Name to points.
        title: What is shown.
        label: What goes up.
        along: What goes to the right.
        shares: The values are shares in 0..1.

    """
    figure, axes = _blank(title)
    for at, (name, points) in enumerate(curves.items()):
        colour = COLOURS[at % len(COLOURS)]
        xs, found = [x for x, _ in points], [each for _, each in points]
        axes.plot(xs, [each.mean for each in found], color=colour, marker="o" if len(xs) < 30 else "", ms=4, label=name)
        low, high = [e.mean - e.stderr for e in found], [e.mean + e.stderr for e in found]
        axes.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
    places = sorted({x for points in curves.values() for x, _ in points})
    if len(places) < 12 and all(x == int(x) for x in places):
        axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.set_xlabel(along, fontsize=SMALL, color=INK)
    axes.set_ylabel(label, fontsize=SMALL, color=INK)
    if shares:
        _as_shares(axes, [each for points in curves.values() for _, each in points])
    if len(curves) > 1:
        _add_legend(axes, len(curves))
    _save(figure, path)


def _blank(title: str, *, width: float = 5.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", pad=26, fontsize=11, color=INK)
    axes.grid(axis="y", color=FAINT, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, colors=INK)
    return figure, axes


def _add_legend(axes: Axes, names: int) -> None:
    """Name the colours in one line between title and drawing, where nothing is covered."""
    axes.legend(
        frameon=False,
        ncols=names,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderpad=0,
        borderaxespad=0.4,
        handlelength=1.2,
        fontsize=SMALL,
        labelcolor=INK,
    )


def _as_shares(axes: Axes, shown: Sequence[Estimate]) -> None:
    """Let the axis begin at 0, since a bar that begins elsewhere misleads, and leave room for the figures."""
    low = min((each.mean - each.stderr for each in shown), default=0.0)
    high = max((each.mean + each.stderr for each in shown), default=1.0)
    axes.set_ylim(min(0.0, low * 1.1), max(0.05, high * 1.14))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))


def _save(figure: Figure, path: str | PathLike[str]) -> None:
    with rc_context(REPEATABLE):
        figure.savefig(path, dpi=160, metadata={"Date": None} if str(path).endswith(".svg") else None)
