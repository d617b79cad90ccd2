"""Traces on real PostgreSQL and MariaDB: what is recorded is read back, and any number of processes may begin."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy as sa

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.models import ExpertChatModel
from cmat_graph.resuming import finished
from cmat_graph.traces import SQLTraceStore, tables
from cmat_graph.types import Episode, Reflection, Step, Task

pytestmark = pytest.mark.server


@pytest.fixture(params=["postgres", "mariadb"])
def url(request):
    """A server's URL, with an empty database."""
    url = request.getfixturevalue(request.param)
    engine = sa.create_engine(url)
    tables.metadata.drop_all(engine)
    engine.dispose()
    return url


def episode(number, text="Döne ☃ 🦉"):
    message = {"role": "user", "content": text}
    step = Step(index=0, attempt=1, node="assistant", messages=[message], completion=text, observation=text)
    return Episode(
        id=f"e{number}",
        env="database",
        task=Task(id="t", prompt=text, split="train", category="UPDATE"),
        run="r",
        reward=1.0,
        stopped="passed",
        attempts=1,
        answer=text,
        steps=[step],
        reflections=[Reflection(text=text, task=text, env="database", node="reflect", attempt=1)],
        settings={"a": [1, None, "ö"]},
        status="completed",
    )


@pytest.mark.parametrize("text", ["Döne ☃ 🦉", "x" * 200_000], ids=["any character", "long"])
def test_what_is_written_is_read_back(url, text):
    with closing(SQLTraceStore(url)) as traces:
        assert traces.add_episode(episode(1, text))
        assert not traces.add_episode(episode(1, text))
        (read,) = traces.episodes(run="r")
    assert (read.task, read.answer, read.status) == (episode(1, text).task, text, "completed")
    assert (read.steps[0].completion, read.steps[0].observation) == (text, text)
    assert read.steps[0].messages[0]["content"] == text
    assert (read.reflections[0].text, read.settings) == (text, {"a": [1, None, "ö"]})


def test_a_run_is_recorded_and_gone_on_with(url, env):
    expert = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations()), checker="probes").compile()
    tasks = env.tasks("train")[:12]
    with closing(SQLTraceStore(url)) as traces:
        outcomes = run_episodes(expert, tasks, env=env, traces=traces, run="expert")
        assert (traces.dropped, traces.why_dropped) == (0, "")
        told = [(each.task, each.solved, len(each.steps)) for each in traces.episodes()]
        (summary,) = traces.runs()
        assert finished(traces, tasks, run="expert", env=env) == {each.task.id: each for each in outcomes}
    assert sorted(told, key=lambda each: each[0].id) == sorted(
        ((task, True, 2) for task in tasks), key=lambda each: each[0].id
    )
    assert (summary["run"], summary["episodes"], summary["solved"], summary["steps"]) == ("expert", 12, 12, 24)


def test_many_may_begin_at_once(url):
    gate = threading.Barrier(4)

    def begin(number):
        gate.wait()
        with closing(SQLTraceStore(url)) as traces:
            traces.add_episode(episode(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))
    with closing(SQLTraceStore(url)) as traces:
        assert {each.id for each in traces.episodes()} == {"e0", "e1", "e2", "e3"}


def test_an_older_schema_is_brought_up_to_date(url):
    SQLTraceStore(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE episodes DROP COLUMN status"))
        connection.execute(sa.text("UPDATE cmat_meta SET schema_version = 3"))
    engine.dispose()
    gate = threading.Barrier(3)

    def begin(number):
        gate.wait()
        with closing(SQLTraceStore(url)) as traces:
            traces.add_episode(episode(number))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(begin, range(3)))
    with closing(SQLTraceStore(url)) as traces:
        assert [each.status for each in traces.episodes()] == ["completed"] * 3
