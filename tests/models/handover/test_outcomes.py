"""Who is told how an episode ended: whoever had a part in it, and nobody else makes an environment look."""

from __future__ import annotations

import pytest
from handover_replies import said

from cmat_graph import create_cmat_graph
from cmat_graph.models.handover import HandOver, Trial
from cmat_graph.state import RunContext
from cmat_graph.traces import outcomes


class Watched:
    """A session that counts how often somebody asks for the reward."""

    def __init__(self, session):
        self.session, self.looks = session, 0

    def score(self):
        self.looks += 1
        return self.session.score()

    def __getattr__(self, name):
        return getattr(self.session, name)


@pytest.fixture
def session(env):
    return Watched(env.open(env.tasks("train")[0]))


def play(assistant, session):
    graph = create_cmat_graph(assistant, max_attempts=1).compile()
    return graph.invoke({"messages": [("user", "Hi")]}, context=RunContext(session=session, env="database"))


@pytest.fixture
def trial(model):
    def make(share=1.0):
        return Trial(current=model("old"), candidate=model("new", name="new"), share=share)

    return make


def test_a_trial_that_is_elsewhere_scores_nothing(trial, model, session):
    elsewhere = trial()
    elsewhere.invoke("?", {"metadata": {"thread_id": "1"}})
    play(model("I do not know."), session)
    assert session.looks == 0
    assert elsewhere.result().outcomes["candidate"].episodes == 0


def test_a_trial_that_is_there_is_told(trial, session):
    here, elsewhere = trial(), trial()
    play(here, session)
    assert session.looks == 1
    assert [each.result().outcomes["candidate"].episodes for each in (here, elsewhere)] == [1, 0]


def test_it_is_there_behind_a_hand_over_too(trial, model, session):
    here = trial()
    play(HandOver(primary=model(said("no", 0.1)), fallback=here), session)
    assert here.result().outcomes["candidate"].episodes == 1


def test_a_trial_that_is_over_wants_nothing_more(trial):
    one = trial(share=0.5)
    for n in range(60):
        by = one.invoke("?", {"metadata": {"thread_id": str(n)}}).text
        one.report(str(n), by == "old")
    assert one.result().status == "rolled back"
    one.invoke("?", {"metadata": {"thread_id": "late"}})
    assert not outcomes.anyone_wants("late")


def test_a_listener_that_fails_ends_nothing(caplog):
    class Broken:
        def wants(self, episode):
            raise RuntimeError("no disk")

        def episode_ended(self, episode, success):
            raise RuntimeError("no disk")

    broken = Broken()
    outcomes.listen(broken)
    assert not outcomes.anyone_wants("broken")
    outcomes.tell("broken", True)
    assert caplog.text.count("could not take the outcome of episode broken") == 2
