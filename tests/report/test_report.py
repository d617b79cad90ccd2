"""Estimates over tasks and seeds, and how they are shown."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cmat_graph.errors import ConfigurationError
from cmat_graph.report import Estimate, Table, estimate, write_page
from cmat_graph.report.estimates import difference
from cmat_graph.report.plots import draw_bars, draw_curves

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@given(SHARES)
def test_one_seed_gives_the_plain_standard_error(row):
    found = estimate([row])
    assert found.mean == pytest.approx(statistics.fmean(row))
    assert found.stderr == pytest.approx(statistics.stdev(row) / len(row) ** 0.5, abs=1e-9)


@given(SHARES, st.integers(2, 4))
def test_seeds_that_change_nothing_do_not_make_it_surer(row, seeds):
    assert estimate([row] * seeds).stderr == pytest.approx(estimate([row]).stderr, abs=1e-9)


def test_the_error_covers_what_new_seeds_and_new_tasks_would_change():
    rng = random.Random(5)
    means, told = [], []
    for _ in range(1500):
        seeds, tasks = [rng.gauss(0, 0.3) for _ in range(4)], [rng.gauss(0, 0.8) for _ in range(25)]
        drawn = estimate([[s + t + rng.gauss(0, 0.5) for t in tasks] for s in seeds])
        means.append(drawn.mean)
        told.append(drawn.stderr**2)
    assert statistics.fmean(told) == pytest.approx(statistics.variance(means), rel=0.12)


def test_an_arm_that_no_seed_changes_is_paired_with_each_seed():
    base = [[0.0, 1.0, 0.0, 0.0]]
    tuned = [[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]]
    assert difference(tuned, base) == difference(tuned, base * 2)
    assert difference(tuned, base).mean == 0.5
    assert difference(base, tuned).mean == -0.5


def test_a_gain_on_the_same_tasks_is_surer_than_two_rates():
    base = [[float(i % 2) for i in range(40)]]
    tuned = [[1.0 if i < 8 else value for i, value in enumerate(base[0])]]
    assert difference(tuned, base).stderr < estimate(base).stderr
    assert difference(base, base) == Estimate(mean=0.0, stderr=0.0)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ConfigurationError, match="same tasks"):
        difference([[1.0, 0.0]], [[1.0]])
    with pytest.raises(ConfigurationError, match="each seed"):
        estimate([[1.0], [1.0, 0.0]])
    assert estimate([]) == estimate([[]]) == Estimate(mean=0.0, stderr=0.0)


TABLE = Table(
    title="Arms [bold]",
    columns=("arm", "success"),
    rows=[("a|b", "1 %"), ("<script>", "[red]2 %")],
    note="One seed & no more.",
)


def test_no_cell_speaks_the_language_of_its_table():
    markdown = TABLE.to_markdown().splitlines()
    assert markdown[0] == "**Arms [bold]**"
    assert "| a\\|b | 1 % |" in markdown
    assert "<td>&lt;script&gt;</td>" in TABLE.to_html()
    assert "seed &amp; no more" in TABLE.to_html()
    console = Console(width=60)
    with console.capture() as screen:
        console.print(TABLE.to_rich())
    assert "[red]2 %" in screen.get()
    assert "Arms [bold]" in screen.get()


BARS = {
    "base": {"agent": Estimate(mean=0.4, stderr=0.05), "general": Estimate(mean=0.0, stderr=0.0)},
    "tuned": {"agent": Estimate(mean=0.81, stderr=0.04)},
}


def test_each_bar_is_drawn_with_its_figure(tmp_path):
    draw_bars(tmp_path / "arms.svg", BARS, title="Held-out tasks")
    drawn = [e.text for e in ET.parse(tmp_path / "arms.svg").iter() if e.tag.endswith("text")]
    assert {"Held-out tasks", "base", "tuned", "agent", "general", "40.0", "81.0", "0.0"} <= set(drawn)
    draw_bars(tmp_path / "again.svg", BARS, title="Held-out tasks")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "arms.svg").read_bytes()


def test_curves_are_drawn_with_their_rounds(tmp_path):
    points = [(0, BARS["base"]["agent"]), (1, BARS["tuned"]["agent"])]
    draw_curves(tmp_path / "rounds.svg", {"success": points, "loss": [(0, Estimate(mean=0.3, stderr=0.0))]})
    drawn = [e.text for e in ET.parse(tmp_path / "rounds.svg").iter() if e.tag.endswith("text")]
    assert {"round", "success rate", "0", "1", "success", "loss"} <= set(drawn)
    draw_curves(tmp_path / "rounds.png", {"success": points}, shares=False)
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_holds_everything_itself(tmp_path):
    draw_bars(tmp_path / "arms.svg", BARS)
    write_page(
        tmp_path / "index.html",
        title="Loop <on>",
        text=["What it says."],
        tables=[TABLE],
        plots=[tmp_path / "arms.svg"],
        details='{"base": "nano"}',
    )
    page = (tmp_path / "index.html").read_text()
    assert "Loop &lt;on&gt;" in page
    assert "data:image/svg+xml;base64," in page
    assert "&quot;nano&quot;" in page
    assert str(tmp_path) not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arms.svg", "index.html"]


def test_without_matplotlib_the_extra_is_named():
    code = (
        "import sys\nsys.modules['matplotlib'] = None\n"
        "import cmat_graph.report\n"
        "try: import cmat_graph.report.plots\n"
        "except ImportError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'pip install "cmat-graph[report]"' in done.stdout
