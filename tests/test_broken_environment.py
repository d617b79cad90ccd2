"""An environment that breaks: one clear error, one lost task, and the best attempt if there is one."""

from __future__ import annotations

import asyncio

import pytest
from sculptures import script

from cmat_graph import RunContext, create_cmat_graph, run_episodes
from cmat_graph.errors import EnvironmentFailure
from cmat_graph.traces import Recorder
from cmat_graph.types import Observation, Task

GIVEN = {"messages": [("user", "Guess the number.")]}


class Guessing:
    """A session in which any number ends the attempt; 7 is right. It breaks where it is told to."""

    def __init__(self, breaks_at="", with_=KeyError("a bug")):
        self.breaks_at, self.error, self.guess = breaks_at, with_, ""

    def _may_break(self, at):
        if at == self.breaks_at:
            raise self.error

    def reset(self):
        self._may_break("reset")
        self.guess = ""

    def step(self, action):
        self._may_break("step")
        self.guess = action
        return Observation(text="higher" if action == "1" else "", done=action != "1")

    def probe(self, action):
        self._may_break("probe")

    def score(self):
        self._may_break("score")
        return float(self.guess == "7")

    def close(self):
        self._may_break("close")


class GuessingEnv:
    """Tasks of which some break."""

    name, rules, max_rounds = "guessing", "Say a number.", 5

    def __init__(self, *breaks_at):
        self.breaks_at = dict(enumerate(breaks_at))

    def tasks(self, split=None):
        return [Task(id=str(i), prompt=f"Guess number {i}.") for i in self.breaks_at]

    def open(self, task):
        return Guessing(self.breaks_at[int(task.id)])


@pytest.fixture(params=["sync", "async"])
def play(request):
    def play(graph, session, config=None):
        context = RunContext(session=session)
        if request.param == "async":
            return asyncio.run(graph.ainvoke(GIVEN, config, context=context))
        return graph.invoke(GIVEN, config, context=context)

    return play


@pytest.mark.parametrize("at", ["reset", "probe", "step", "score"])
def test_whatever_it_raises_is_an_environment_failure(play, at, traces):
    graph = create_cmat_graph(script("7"), checker="probes").compile()
    recorder = Recorder(traces, task=Task(id="1", prompt="Guess."))
    with pytest.raises(EnvironmentFailure, match="KeyError: 'a bug'") as caught:
        play(graph, Guessing(at), {"callbacks": [recorder]})
    assert isinstance(caught.value.__cause__, KeyError)


def test_so_is_a_reward_that_cannot_be_looked_at(play):
    with pytest.raises(EnvironmentFailure, match="a bug"):
        play(create_cmat_graph(script("7"), use_reward=True).compile(), Guessing("score"))


def test_its_own_words_are_kept(play):
    with pytest.raises(EnvironmentFailure, match=r"^the server is gone"):
        play(create_cmat_graph(script("7")).compile(), Guessing("step", EnvironmentFailure("the server is gone")))


def test_an_environment_that_breaks_later_leaves_the_best_answer(play):
    session = Guessing()

    def break_it(draft):
        session.breaks_at = "step" if draft["content"] == "5" else ""

    graph = create_cmat_graph(
        script("3", "5"), checker=script("approve", "reject: wrong", "approve"), probes=[break_it]
    )
    state = play(graph.compile(), session)
    assert (state["cmat"]["stopped"], state["messages"][-1].text) == ("error", "3")
    assert "KeyError" in state["cmat"]["error"]


@pytest.mark.parametrize("at", ["reset", "probe", "step", "score"])
def test_one_broken_task_does_not_stop_the_others(at, traces):
    env = GuessingEnv("", at, "")
    outcomes = run_episodes(
        create_cmat_graph(script("7"), checker="probes").compile(), env.tasks(), env=env, traces=traces
    )
    assert [(outcome.reward, outcome.stopped) for outcome in outcomes] == [
        (1.0, "passed"),
        (0.0, "error"),
        (1.0, "passed"),
    ]
    assert outcomes[1].error == "EnvironmentFailure: the environment broke: KeyError: 'a bug'"
    assert sorted(episode.stopped for episode in traces.episodes()) == ["error", "passed", "passed"]


def test_a_dead_model_at_one_task_does_not_stop_the_others():
    model = script("7", ValueError("too long"), "7")
    env = GuessingEnv("", "", "")
    graph = create_cmat_graph(model, retry_policy=None).compile()
    outcomes = run_episodes(graph, env.tasks(), env=env, concurrency=1)
    assert [outcome.error for outcome in outcomes] == ["", "ValueError: too long", ""]


def test_a_session_that_cannot_be_closed_does_not_stop_the_others():
    env = GuessingEnv("", "close", "")
    outcomes = run_episodes(create_cmat_graph(script("7")).compile(), env.tasks(), env=env)
    assert [outcome.reward for outcome in outcomes] == [1.0, 1.0, 1.0]
