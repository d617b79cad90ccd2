"""Exports that are damaged or mean harm: they are counted or named, and never stop what is whole."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
import sqlalchemy as sa

from cmat_graph.errors import DatasetError, TraceStoreError
from cmat_graph.traces import SQLTraceStore
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


def test_an_import_that_was_killed_is_done_again_and_nothing_is_there_twice(tmp_path):
    """Killed after the first trace, and in the middle of the second, with its first step written."""
    file = write(tmp_path, *({**SAID, "id": f"db_{each}"} for each in range(3)))
    url = f"sqlite:///{tmp_path / 'killed.db'}"
    code = (
        "import os, signal, sys\n"
        "import sqlalchemy as sa\n"
        "from cmat_graph.traces import SQLTraceStore\n"
        "from cmat_graph.traces.imports import import_traces\n"
        "store, done = SQLTraceStore(sys.argv[2]), []\n"
        "@sa.event.listens_for(store._engine, 'after_cursor_execute')\n"
        "def die(connection, cursor, statement, *rest):\n"
        "    if done and 'INSERT INTO steps' in statement: os.kill(os.getpid(), signal.SIGKILL)\n"
        "import_traces(sys.argv[1], store, form='agentinstruct', progress=done.append)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(file), url], env=os.environ, check=False)
    assert died.returncode == -signal.SIGKILL
    traces = SQLTraceStore(url)
    assert [len(episode.steps) for episode in traces.episodes()] == [1]
    again = import_traces(file, traces, form="agentinstruct")
    assert (again.episodes, again.left_out) == (2, {"traces that were imported before": 1})
    assert import_traces(file, traces, form="agentinstruct").episodes == 0
    assert [len(episode.steps) for episode in traces.episodes()] == [1, 1, 1]


def test_half_a_trace_that_an_older_version_left_is_replaced(traces, tmp_path):
    file = write(tmp_path, SAID)
    import_traces(file, traces, form="agentinstruct")
    (episode,) = traces.episodes()
    with traces._engine.begin() as connection:  # as if it had been killed before the end was written
        connection.execute(sa.text("UPDATE episodes SET finished = NULL, reward = NULL, stopped = 'running'"))
    assert import_traces(file, traces, form="agentinstruct").episodes == 1
    assert list(traces.episodes()) == [episode]


def test_a_database_that_takes_nothing_is_named_and_the_import_goes_on_later(traces, tmp_path):
    file = write(tmp_path, SAID)
    with traces._engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE steps RENAME TO away"))
    with pytest.raises(TraceStoreError, match="cannot write traces"):
        import_traces(file, traces, form="agentinstruct")
    with traces._engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO steps"))
    assert import_traces(file, traces, form="agentinstruct").episodes == 1
