"""The debate's benchmark in the small: its arms say the same, and its figures have targets."""

from __future__ import annotations

import pytest

from cmat_graph.cli.bench import load_benchmark


@pytest.mark.slow
def test_the_arms_of_the_benchmark_write_the_same_tokens(monkeypatch):
    bench = load_benchmark("debate")
    monkeypatch.setattr(bench, "PARTS", 1)
    monkeypatch.setattr(bench, "TOKENS", 8)
    monkeypatch.setattr(bench, "DRAWN", bench.DRAWN | {"max_tokens": 8})
    race, ceiling, memory = bench.measure(size=2)
    assert [each["metric"] for each in (race, ceiling, memory)] == [
        "debate_vs_sequential", "debate_vs_raw_ceiling", "memory_6_agents_ratio",
    ]  # fmt: skip
    assert race["detail"]["replies_equal_to_one_by_one"] == 1.0
    assert (race["detail"]["calls"], race["detail"]["questions"]) == (18, 2)
    assert memory["ok"]
