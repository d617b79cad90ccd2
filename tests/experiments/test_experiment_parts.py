"""One part of the loop taken away at a time, with assistants to whom just that part matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cmat_graph.errors import ConfigurationError
from cmat_graph.experiments import run_parts
from cmat_graph.memory.ranking import Policy
from cmat_graph.models import ExpertChatModel
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.traces import SQLTraceStore

ANY = Policy(min_similarity=0.0, proven_only=False)
LESSON = "Write a statement first: a reply without an action is refused."


class Told(ExpertChatModel):
    """Knows what to do once it has read a word; until then it says OK."""

    word: str

    def _generate(self, messages, *args, **kwargs):
        if any(self.word in str(message.text) for message in messages if message.type == "human"):
            return super()._generate(messages, *args, **kwargs)
        return ScriptedChatModel(replies=["OK"])._generate(messages)


def measure(setup, env, word, **options):
    told = Told(demonstrations=env.demonstrations(), word=word)
    writer = options.pop("reflector", lambda: ScriptedChatModel(replies=[LESSON]))
    result = run_parts(setup, assistant=lambda: told, reflector=writer, practice=2, **options)
    return {arm.name: arm.success.mean for arm in result.arms}, result


def test_the_checker_matters_to_who_listens_to_it(setup, env):
    rates, result = measure(setup, env, "Checker: ")
    assert rates == {"all parts": 1.0, "no checker": 0.0, "no reflection": 1.0, "no memory": 1.0, "no part": 0.0}
    gaps = {gap.worse: gap.difference.mean for gap in result.gaps}
    assert gaps == {"no checker": 1.0, "no reflection": 0.0, "no memory": 0.0, "no part": 1.0}


def test_reflection_matters_to_who_reads_lessons(setup, env):
    rates, _ = measure(replace(setup, attempts=2), env, LESSON, policy=Policy(min_similarity=1.0))
    assert rates["all parts"] == rates["no memory"] == 1.0
    assert rates["no reflection"] == rates["no part"] == 0.0


def test_memory_matters_to_who_has_one_attempt(setup, env):
    rates, _ = measure(replace(setup, attempts=1), env, LESSON, policy=ANY)
    assert rates["all parts"] == 1.0
    assert rates["no memory"] < 1.0  # an error within the attempt may still leave a lesson
    assert rates["no part"] == 0.0


def test_each_seed_practises_anew_and_nothing_is_done_twice(setup, env, never):
    setup = replace(setup, seeds=2)
    _, result = measure(setup, env, LESSON, policy=ANY)
    assert [arm.seeds for arm in result.arms] == [2, 2, 2, 1, 1]  # without memory no seed changes anything
    traces = SQLTraceStore(f"sqlite:///{setup.folder / 'traces.db'}")
    practised = [list(traces.episodes(run=f"practice: all parts, seed {seed}")) for seed in (0, 1)]
    assert {e.task.split for each in practised for e in each} == {"train"}
    assert [len(each) for each in practised] == [2, 2]
    assert [e.task.id for e in practised[0]] != [e.task.id for e in practised[1]]
    assert {e.task.id for e in traces.episodes(run="all parts, seed 1")} == {task.id for task in setup.test}
    assert not list(traces.episodes(run="practice: no memory, seed 0"))
    assert run_parts(setup, assistant=never, practice=2).arms == result.arms


def test_without_anything_to_practise_on_there_is_no_memory(setup):
    with pytest.raises(ConfigurationError, match="practise"):
        run_parts(replace(setup, train=[]))
