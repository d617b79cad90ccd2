"""Exports that are damaged or mean harm: they are counted or named, and never stop what is whole."""

from __future__ import annotations

import json
import logging

import pytest

from cmat_graph.errors import DatasetError
from cmat_graph.traces.imports import import_traces
from cmat_graph.traces.imports.steps import number

SAID = {"id": "db_1", "conversations": [{"from": "human", "value": "Add."}, {"from": "gpt", "value": "3"}]}


def run_of(trace, **more):
    told = {"id": trace, "trace_id": trace, "run_type": "llm", "start_time": "2026-01-01T00:00:00", "inputs": {"a": 1}}
    told |= {"inputs": {"messages": [{"role": "user", "content": f"Add for {trace}"}]}, "outputs": {"text": "3"}}
    return told | more


def write(tmp_path, *rows):
    file = tmp_path / "export.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "broken",
    [
        {"outputs": {"generations": [[]]}},
        {"outputs": {"content": "x", "tool_calls": [1]}},
        {"outputs": {"content": "x", "invalid_tool_calls": [1]}},
        {"inputs": {"messages": {"lc": 1, "kwargs": 7}}},
        {"extra": [1]},
        {"feedback_stats": "none"},
    ],
)
def test_a_damaged_trace_is_counted_and_the_others_are_read(traces, tmp_path, caplog, broken):
    rows = [run_of("one"), run_of("two", **broken), run_of("three")]
    with caplog.at_level(logging.WARNING):
        done = import_traces(write(tmp_path, *rows), traces, form="langsmith")
    assert {episode.settings["trace"] for episode in traces.episodes()} >= {"one", "three"}
    assert done.episodes + sum(done.left_out.values()) == 3
    assert ("'two' cannot be read" in caplog.text) == ("damaged traces" in done.left_out)


def test_half_a_surrogate_pair_is_replaced(traces, tmp_path):
    row = {"id": "\ud800", "conversations": [{"from": "human", "value": "\ud800?"}, {"from": "gpt", "value": "\udfff"}]}
    assert import_traces(write(tmp_path, row), traces, form="agentinstruct").episodes == 1
    (episode,) = traces.episodes()
    assert episode.steps[0].completion == "?"


def test_what_nests_without_end_is_no_export(traces, tmp_path):
    (tmp_path / "export.jsonl").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DatasetError, match="neither JSON lines nor JSON"):
        import_traces(tmp_path / "export.jsonl", traces, form="langsmith")
    deep = run_of("one", inputs="[" * 100_000)
    assert import_traces(write(tmp_path, deep, run_of("two")), traces, form="langsmith").episodes >= 1


def test_names_that_begin_alike_are_not_one_trace(traces, tmp_path):
    long = "session-of-the-first-of-january-with-user-"
    rows = [run_of(f"{long}{number}") for number in range(3)]
    assert import_traces(write(tmp_path, *rows), traces, form="langsmith").episodes == 3
    assert len({step.key for episode in traces.episodes() for step in episode.steps}) == 3
    seen = [
        {
            "id": f"{number}-{long}{long}",
            "trace_id": f"fuse-{long}{number}",
            "type": "GENERATION",
            "input": "Add",
            "output": "3",
        }
        for number in range(3)
    ]
    assert import_traces(write(tmp_path, *seen), traces, form="langfuse").episodes == 3
    assert len({step.key for episode in traces.episodes() for step in episode.steps}) == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5, 10**30, "7", None])
def test_a_count_that_is_none_is_zero(value):
    assert number(value) == 0
