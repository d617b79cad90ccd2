from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import sqlalchemy as sa

from cmat_graph.errors import TraceStoreError
from cmat_graph.traces import Recorder, SQLTraceStore
from cmat_graph.types import Reflection, Task

TASK = Task(id="t1", prompt="Do it.", split="train", category="UPDATE")


def record(traces, *, reward=1.0, run=""):
    recorder = Recorder(traces, env="database", task=TASK, run=run)
    step = recorder.step(
        node="assistant",
        attempt=1,
        messages=[{"role": "user", "content": "Dö it ☃"}],
        completion="Done.",
        input_tokens=3,
    )
    recorder.verdict(step, {"phase": "before", "decision": "approve", "reason": "", "hint": "", "source": "probes"})
    recorder.observation(step, "OK", error=False)
    recorder.reflection(Reflection(text="Look first.", task=TASK.prompt))
    recorder.finish(reward=reward, stopped="passed", attempts=1, answer="yes")
    return recorder.episode_id


def test_what_is_recorded_is_read_back(traces):
    episode_id = record(traces)
    (episode,) = traces.episodes()
    (step,) = episode.steps
    assert (episode.id, episode.task, episode.answer) == (episode_id, TASK, "yes")
    assert (step.messages, step.completion) == ([{"role": "user", "content": "Dö it ☃"}], "Done.")
    assert (step.before["source"], step.observation, step.input_tokens) == ("probes", "OK", 3)
    assert [r.text for r in episode.reflections] == ["Look first."]


def test_episodes_are_chosen_by_run_split_and_success(traces):
    record(traces, run="a")
    record(traces, run="b", reward=0.0)
    assert [e.run for e in traces.episodes(solved=True)] == ["a"]
    assert [e.run for e in traces.episodes(solved=False)] == ["b"]
    assert list(traces.episodes(run="c")) == list(traces.episodes(split="test")) == []


def test_many_episodes_come_in_pages(traces):
    ids = [record(traces) for _ in range(230)]
    assert [e.id for e in traces.episodes()] == ids


def test_runs_are_summed_up(traces):
    record(traces, run="a")
    record(traces, run="a", reward=0.0)
    assert traces.runs() == [
        {"run": "a", "env": "database", "episodes": 2, "solved": 1, "steps": 2, "tokens": 6},
    ]


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/t.db", "nodialect://x"])
def test_a_url_that_cannot_be_opened_names_the_fix(url):
    with pytest.raises(TraceStoreError, match=r"try sqlite|check that the path"):
        SQLTraceStore(url)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "t.db").write_text("some text that is long enough to be no header of a database" * 20)
    with pytest.raises(TraceStoreError, match="no trace database"):
        SQLTraceStore(f"sqlite:///{tmp_path / 't.db'}")


def test_traces_of_a_newer_version_are_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 't.db'}"
    SQLTraceStore(url).close()
    with sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql("UPDATE cmat_meta SET schema_version = 99")
    with pytest.raises(TraceStoreError, match="newer cmat-graph"):
        SQLTraceStore(url)


def test_a_full_disk_is_named_and_loses_nothing(traces):
    record(traces)
    with traces._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(traces._engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count={pages + 2}"))
    traces._engine.dispose()
    with pytest.raises(TraceStoreError, match="free some disk space"):
        all(record(traces) for _ in range(1000))
    assert next(iter(traces.episodes())).solved


def test_a_killed_process_loses_no_finished_step(tmp_path):
    url = f"sqlite:///{tmp_path / 't.db'}"
    code = textwrap.dedent(f"""
        from cmat_graph.traces import Recorder, SQLTraceStore
        from cmat_graph.types import Task
        recorder = Recorder(SQLTraceStore({url!r}), env="e", task=Task(id="1", prompt="?"))
        for i in range(10**6):
            recorder.step(node="assistant", attempt=1, messages=[], completion=str(i))
            print(i, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "50":
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    (episode,) = SQLTraceStore(url).episodes()
    assert [s.completion for s in episode.steps[:51]] == [str(i) for i in range(51)]
    assert episode.stopped == "running"


def test_passwords_are_not_shown():
    pytest.importorskip("psycopg")
    with pytest.raises(TraceStoreError) as caught:
        SQLTraceStore("postgresql://user:geheim@127.0.0.1:1/none")
    assert "geheim" not in str(caught.value)
