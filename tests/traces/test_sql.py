from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy as sa
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from cmat_graph import create_cmat_graph
from cmat_graph.errors import TraceStoreError
from cmat_graph.nodes.attempt import judgement
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.traces import Recorder, SQLTraceStore, TraceHandler
from cmat_graph.types import Reflection, Task

SCHEMA_1 = """
CREATE TABLE cmat_meta (schema_version INTEGER NOT NULL);
INSERT INTO cmat_meta VALUES (1);
CREATE TABLE episodes (id VARCHAR(36) PRIMARY KEY, run VARCHAR(200) NOT NULL, env VARCHAR(100) NOT NULL,
  task_id VARCHAR(200) NOT NULL, split VARCHAR(50) NOT NULL, category VARCHAR(100) NOT NULL, prompt TEXT NOT NULL,
  started DATETIME NOT NULL, finished DATETIME, reward FLOAT, stopped VARCHAR(20) NOT NULL, attempts INTEGER NOT NULL,
  answer TEXT NOT NULL, error TEXT NOT NULL, settings JSON NOT NULL);
CREATE TABLE steps (id INTEGER PRIMARY KEY, episode_id VARCHAR(36) NOT NULL REFERENCES episodes (id) ON DELETE CASCADE,
  "index" INTEGER NOT NULL, attempt INTEGER NOT NULL, node VARCHAR(50) NOT NULL, messages JSON NOT NULL,
  completion TEXT NOT NULL, "before" JSON, "after" JSON, observation TEXT, observation_error BOOLEAN NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, seconds FLOAT NOT NULL, model VARCHAR(200) NOT NULL,
  adapter VARCHAR(200) NOT NULL, created DATETIME NOT NULL);
CREATE TABLE reflections (id INTEGER PRIMARY KEY, episode_id VARCHAR(36) NOT NULL, node VARCHAR(50) NOT NULL,
  attempt INTEGER NOT NULL, text TEXT NOT NULL, created DATETIME NOT NULL);
INSERT INTO episodes VALUES ('a', '', 'e', '1', '', '', '?', '2026-01-01 00:00:00.000000', NULL, 1.0, 'passed', 1, '',
  '', '{}');
INSERT INTO steps VALUES (1, 'a', 0, 1, 'assistant', '[]', 'Done.', NULL, NULL, NULL, 0, 0, 0, 0.0, '', '',
  '2026-01-01 00:00:00.000000');
"""
TASK = Task(id="t1", prompt="Do it.", split="train", category="UPDATE")


def record(traces, *, reward=1.0, run=""):
    """Play one step as callbacks and nodes tell it."""
    recorder = Recorder(traces, env="database", task=TASK, run=run)
    call = uuid.uuid4()
    told = {"langgraph_node": "assistant", "cmat_attempt": 1, "cmat_call": "c"}
    recorder.on_chat_model_start({}, [[HumanMessage("Dö it ☃")]], run_id=call, metadata=told)
    usage = {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}
    reply = ChatGeneration(message=AIMessage("Done.", usage_metadata=usage))
    recorder.on_llm_end(LLMResult(generations=[[reply]]), run_id=call)
    step = recorder.key_of("c")
    recorder.verdict(step, judgement("before", "approve", source="probes"))
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


def test_a_full_disk_is_named_and_loses_nothing_written_before(traces):
    record(traces)
    with traces._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(traces._engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count={pages + 2}"))
    traces._engine.dispose()
    for _ in range(300):
        record(traces)
    traces.flush()
    assert traces.dropped > 0
    assert "full" in traces.why_dropped
    assert next(iter(traces.episodes())).solved


def test_a_killed_process_loses_no_finished_episode(tmp_path):
    url = f"sqlite:///{tmp_path / 't.db'}"
    code = textwrap.dedent(f"""
        from cmat_graph import create_cmat_graph, run_episode
        from cmat_graph.envs import load_env
        from cmat_graph.models import ExpertChatModel
        from cmat_graph.traces import SQLTraceStore
        env, traces = load_env("database", size=8), SQLTraceStore({url!r})
        graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
        for i in range(10**6):
            run_episode(graph, env.tasks()[i % 8], env=env, traces=traces)
            print(i, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "20":
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    played = list(SQLTraceStore(url).episodes())
    assert [e.reward for e in played[:21]] == [1.0] * 21
    assert all(step.observation is not None for e in played[:21] for step in e.steps)


def test_what_is_recorded_is_written_within_moments(tmp_path):
    url = f"sqlite:///{tmp_path / 't.db'}"
    record(SQLTraceStore(url))
    time.sleep(1.0)
    with closing(sqlite3.connect(tmp_path / "t.db")) as other:
        assert other.execute("SELECT stopped FROM episodes").fetchall() == [("passed",)]


def test_a_broken_database_breaks_no_answer_and_counts_what_it_dropped(traces, caplog):
    with traces._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE steps")
    graph = create_cmat_graph(ScriptedChatModel(replies=["Four."])).compile()
    handler = TraceHandler(traces)
    result = graph.invoke({"messages": [("user", "2 + 2?")]}, {"callbacks": [handler]})
    traces.flush()
    assert result["messages"][-1].text == "Four."
    assert traces.dropped >= 1
    assert "no such table" in traces.why_dropped
    assert "traces are being dropped" in caplog.text


def test_traces_of_the_first_schema_are_read_and_written_on(tmp_path):
    """A database as version 0.1.0's first schema made it."""
    old = sqlite3.connect(tmp_path / "t.db")
    old.executescript(SCHEMA_1)
    old.close()
    traces = SQLTraceStore(f"sqlite:///{tmp_path / 't.db'}")
    record(traces)
    first, second = traces.episodes()
    assert (first.steps[0].completion, first.steps[0].tool_calls, first.roles) == ("Done.", [], {})
    assert (first.steps[0].told, first.status) == ({}, "")
    assert second.steps[0].observation == "OK"
    traces.close()
    assert len(list(SQLTraceStore(traces.url).episodes())) == 2


@pytest.mark.parametrize("old", [False, True], ids=["fresh", "first schema"])
def test_many_may_open_a_file_at_once(tmp_path, old):
    for n in range(20):  # of ten fresh files, four threads locked each other out of one
        gate = threading.Barrier(4)
        if old:
            with closing(sqlite3.connect(tmp_path / f"{n}.db")) as first:
                first.executescript(SCHEMA_1)

        def begin(_, n=n, gate=gate):
            gate.wait()
            with closing(SQLTraceStore(f"sqlite:///{tmp_path / f'{n}.db'}")) as traces:
                return len(list(traces.episodes()))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(begin, range(4))) == [int(old)] * 4


def test_secrets_are_not_stored(traces):
    recorder = Recorder(traces, task=Task(id="1", prompt="Use postgresql://bob:geheim@host/db"))
    recorder.finish(reward=1.0, stopped="passed", attempts=1, answer="Authorization: Bearer abcdef0123456789")
    (episode,) = traces.episodes()
    assert "geheim" not in episode.task.prompt
    assert "abcdef0123456789" not in episode.answer


def test_passwords_are_not_shown():
    pytest.importorskip("psycopg")
    with pytest.raises(TraceStoreError) as caught:
        SQLTraceStore("postgresql://user:geheim@127.0.0.1:1/none")
    assert "geheim" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_records_too(tmp_path):
    code = textwrap.dedent(f"""
        import os
        from cmat_graph.traces import Recorder, SQLTraceStore
        from cmat_graph.types import Task
        traces = SQLTraceStore("sqlite:///{tmp_path / "t.db"}")
        def record(name):
            Recorder(traces, task=Task(id=name, prompt="?")).finish(reward=1.0, stopped="passed", attempts=1)
            traces.flush()
        record("parent")
        if (child := os.fork()) == 0:
            record("child")
            os._exit(traces.dropped)
        assert os.waitpid(child, 0)[1] == 0
    """)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
    assert {e.task.id for e in SQLTraceStore(f"sqlite:///{tmp_path / 't.db'}").episodes()} == {"parent", "child"}


@pytest.mark.clock
def test_a_locked_database_makes_nobody_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("cmat_graph.traces.writer.WAITING", 50)
    traces = SQLTraceStore(f"sqlite:///{tmp_path / 't.db'}")
    with closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.perf_counter()
        for _ in range(100):
            record(traces)
        assert time.perf_counter() - start < 5.0  # one row alone would wait ten seconds for the lock
        other.execute("ROLLBACK")
    traces.flush()
    assert traces.dropped > 0
    assert "locked" in traces.why_dropped
