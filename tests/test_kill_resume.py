"""A process is killed in the middle, for real; a new one goes on, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")
import mortal

from cmat_graph.nodes.execute import IN_DOUBT
from cmat_graph.traces import SQLTraceStore

pytestmark = pytest.mark.slow


@pytest.fixture
def kill(tmp_path):
    def kill(story, *, durability="sync", seconds=0.0):
        command = [sys.executable, mortal.__file__, story, str(tmp_path), durability]
        quick = os.environ | {"MORTAL_SECONDS": str(seconds), "OMP_NUM_THREADS": "1"}
        died = subprocess.run(command, env=quick, capture_output=True, text=True, timeout=60, check=False)
        assert died.returncode == -signal.SIGKILL, died.stderr

    return kill


def test_an_episode_goes_on_where_its_process_was_killed(kill, tmp_path):
    kill("episode", seconds=0.3)
    (begun,) = SQLTraceStore(f"sqlite:///{tmp_path}/traces.db").episodes()
    assert [step.completion for step in begun.steps] == [mortal.FIRST]
    outcome, (episode,) = mortal.play_episode(mortal.model(mortal.SECOND, mortal.LAST), tmp_path)
    assert (outcome.reward, outcome.stopped, outcome.episode_id) == (1.0, "passed", begun.id)
    assert (episode.id, episode.reward) == (begun.id, 1.0)
    assert [(step.index, step.completion) for step in episode.steps] == [
        (0, mortal.FIRST),
        (1, mortal.SECOND),
        (2, mortal.LAST),
    ]
    assert [step.observation for step in episode.steps] == ["OK, 1 row changed.", "OK, 1 row changed.", ""]


def test_an_episode_that_was_killed_at_once_is_not_lost_either(kill, tmp_path):
    kill("episode")
    outcome, (episode,) = mortal.play_episode(mortal.model(mortal.SECOND, mortal.LAST), tmp_path)
    assert (outcome.reward, episode.id, episode.reward) == (1.0, outcome.episode_id, 1.0)
    assert [step.completion for step in episode.steps][-2:] == [mortal.SECOND, mortal.LAST]


def test_the_next_run_of_a_finished_task_begins_afresh(tmp_path):
    replies = (mortal.FIRST, mortal.SECOND, mortal.LAST)
    first, _ = mortal.play_episode(mortal.model(*replies), tmp_path)
    model = mortal.model(*replies)
    second, episodes = mortal.play_episode(model, tmp_path)
    assert (first.reward, second.reward, len(episodes)) == (1.0, 1.0, 2)
    assert [message.type for message in model.calls[0]] == ["system", "human"]


@pytest.mark.parametrize(("durability", "seconds"), [("sync", 0.0), ("async", 0.3)])
def test_so_does_a_plain_graph(kill, tmp_path, durability, seconds):
    kill("plain", durability=durability, seconds=seconds)
    model = mortal.model(mortal.SECOND, mortal.LAST)
    state, reward = mortal.play_plainly(model, tmp_path)
    assert (state["stopped"], reward) == ("passed", 1.0)
    assert [done[1] for done in state["done_so_far"]] == ["OK, 1 row changed.", "OK, 1 row changed.", ""]
    assert len(model.calls) == 2


@pytest.mark.parametrize(("durability", "seconds"), [("sync", 0.0), ("async", 0.3)])
@pytest.mark.parametrize("memory", ["traces", "handler", "store"])
def test_a_tool_that_was_killed_after_its_effect_is_not_called_again(kill, tmp_path, memory, durability, seconds):
    kill(memory, durability=durability, seconds=seconds)
    model = mortal.model("Done.")
    state, episodes = mortal.write_once(model, tmp_path, memory=memory)
    assert (tmp_path / "lines").read_text() == "hello\n"
    assert model.calls[0][-1].text == IN_DOUBT
    assert (state["stopped"], state["answer"], state["attempt"]) == ("passed", "Done.", 1)
    if memory != "store":
        (episode,) = episodes
        assert episode.steps[0].observation == IN_DOUBT
