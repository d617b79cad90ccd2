"""Question sets: batches and slices change nothing, and a run that was stopped goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import mortal_debate
import pytest
from debaters import Agent, agent, as_graph, in_batches, sums_up

from cmat_graph.debate import DebateSettings, Rules, prompt_pack, read_debate, run_debates
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError, TraceStoreError
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.scripted import ScriptedEngine
from cmat_graph.traces import SQLTraceStore
from cmat_graph.tuning.debates import debate_sets
from cmat_graph.types import Observation, Task

TASKS = [Task(id=str(i), prompt=f"What is {i}+1?", split="test") for i in range(6)]


def plain(debates):
    """Leave out what differs from run to run: times, keys and episode ids."""

    def bare(said):
        return replace(said, seconds=0.0, key="")

    return [
        replace(d, turns=tuple(map(bare, d.turns)), summaries=tuple(map(bare, d.summaries)), episode="")
        for d in debates
    ]


class Sums:
    """Questions with gold: how many more than the number in the question."""

    name = "questions"

    def open(self, task):
        self.task, self.said = task, ""
        return self

    def step(self, action):
        self.said = action
        return Observation(text="", done=True)

    def score(self):
        return float(self.said.endswith(f"Answer: {int(self.task.id) + 1}"))

    def close(self):
        self.task = None


def knowing(*known):
    """Return an agent that knows the sums of some tasks, and says 0 to all others."""

    def say(prompt):
        question = prompt[-1]["content"]
        return next((f"Answer: {i + 1}" for i in known if f"What is {i}+1?" in question), "Answer: 0")

    return Agent(script=say)


# -- what comes back --------------------------------------------------------------------------------------------


def test_debates_come_in_the_order_of_the_tasks_and_are_reported_one_by_one():
    told = []
    debates = run_debates(TASKS, generators=knowing(0, 1, 2, 3, 4, 5), batch=4, report=told.append)
    assert [debate.task for debate in debates] == TASKS
    assert [debate.answer for debate in debates] == ["1", "2", "3", "4", "5", "6"]
    assert told == debates
    assert run_debates([], generators=knowing()) == []


def test_the_gold_scores_the_consensus_and_what_cannot_be_read_is_wrong(traces):
    agents = [knowing(0, 1, 2), knowing(0, 1), knowing(0)]
    debates = run_debates(
        TASKS[:3], generators=agents, summariser=Agent(script=sums_up), env=Sums(), score=True, traces=traces, run="a"
    )
    assert [debate.reward for debate in debates] == [1.0, 1.0, 0.0]
    mute = run_debates(TASKS[:1], generators=agent("Hm."), env=Sums(), score=True)
    assert (mute[0].answer, mute[0].reward) == ("", 0.0)
    assert [(e.reward, e.env, e.task.split, e.stopped) for e in traces.episodes(run="a")] == [
        (reward, "questions", "test", "ended") for reward in (1.0, 1.0, 0.0)
    ]
    with pytest.raises(ConfigurationError, match="env="):
        run_debates(TASKS, generators=agent("Hm."), score=True)


def test_a_debate_scored_later_is_not_played_again(traces):
    model = knowing(0, 1)
    first = run_debates(TASKS[:3], generators=model, env=Sums(), traces=traces, run="a")
    assert [debate.reward for debate in first] == [None] * 3
    asked = len(model.heard)
    later = run_debates(TASKS[:3], generators=model, env=Sums(), traces=traces, run="a", score=True)
    assert [debate.reward for debate in later] == [1.0, 1.0, 0.0]
    assert len(model.heard) == asked
    assert [episode.reward for episode in traces.episodes()] == [1.0, 1.0, 0.0]


# -- local agents -----------------------------------------------------------------------------------------------


def local(script, **settings):
    return TinyAgent(engine=ScriptedEngine(script), **settings)


def test_local_agents_of_one_engine_are_asked_all_at_once():
    engine = ScriptedEngine(lambda question: "Answer: 4", seconds=0.002, capacity=200)
    agents = [TinyAgent(engine=engine, temperature=1.0) for _ in range(3)]
    [debate, *_] = run_debates(TASKS, generators=agents)
    assert debate.turns[0].model == "scripted"
    assert debate.turns[0].output_tokens > 0
    assert len(engine.questions) == 9 * len(TASKS)
    assert len({question.sampling.seed for question in engine.questions}) == 9 * len(TASKS)


def test_seeds_are_those_of_the_question_and_the_seat_whatever_the_slice():
    def seeds(batch, tasks):
        engine = ScriptedEngine(lambda question: "Answer: 4")
        run_debates(tasks, generators=TinyAgent(engine=engine), batch=batch, settings=DebateSettings(seed=5))
        return {question.sampling.seed for question in engine.questions}

    assert seeds(1, TASKS) == seeds(6, TASKS[::-1])
    assert seeds(2, TASKS[:2]) < seeds(3, TASKS)


def test_a_prompt_past_the_window_is_that_agents_failure():
    engine = ScriptedEngine(lambda question: "Answer: 4 " * 40, window=200)
    [debate] = run_debates(TASKS[:1], generators=TinyAgent(engine=engine), agents=2)
    assert {turn.error.split(":")[0] for turn in debate.round(2)} == {"PromptTooLongError"}
    assert debate.failed


def test_a_mistake_in_the_set_up_is_raised_not_counted():
    with pytest.raises(AdapterNotFoundError):
        run_debates(TASKS[:1], generators=local(["Answer: 1"], adapter="generator-0/none"), settings=DebateSettings())


def test_nano_says_the_same_whatever_the_slices_are():
    nano = TinyAgent.load("nano", dtype="float32", temperature=1.0, max_tokens=24)

    def said(batch):
        debates = run_debates(TASKS[:4], generators=nano, agents=2, batch=batch, settings=DebateSettings(seed=1))
        return [[turn.reply for turn in debate.turns] for debate in debates]

    whole = said(4)
    assert said(1) == whole
    assert len({reply for replies in whole for reply in replies}) > 4


# -- what is recorded -------------------------------------------------------------------------------------------


def seats():
    return {
        "generators": [agent("Answer: 1"), agent("Answer: 2"), agent(RuntimeError("busy"))],
        "critics": [agent("Answer: 2"), agent("Answer: 2"), agent("Answer: 1")],
        "summariser": Agent(script=sums_up),
    }


def test_graph_and_batches_record_equal_episodes(tmp_path):
    recorded = {}
    for name, way in (("graph", as_graph), ("batches", in_batches)):
        traces = SQLTraceStore(f"sqlite:///{tmp_path / name}.db")
        way(traces=traces, run="r", **seats())
        [episode] = traces.episodes()
        steps = sorted(episode.steps, key=lambda step: (step.attempt, step.node))
        recorded[name] = (
            [(s.node, s.attempt, s.messages, s.completion, s.model, s.adapter, s.told) for s in steps],
            (episode.run, episode.answer, episode.stopped, episode.attempts, episode.error, episode.reward),
            (episode.settings, episode.roles, episode.task),
        )
    assert recorded["graph"] == recorded["batches"]
    steps, end, (settings, roles, task) = recorded["graph"]
    assert [(node, attempt) for node, attempt, *_ in steps] == [
        ("generator-0", 1), ("generator-1", 1), *((f"critic-{i}", 2) for i in range(3)),
        *((f"summary-{i}", 2) for i in range(3)),
    ]  # fmt: skip
    assert end == ("r", "2", "ended", 2, "generator-2 in round 1: RuntimeError: busy", None)
    assert settings["debate"] | {"models": {}} == {
        "agents": 3, "rounds": 2, "summarise": True, "mode": "critique", "stop_when_unanimous": False,
        "most_solutions": 5, "seed": 0, "pack": "arithmetic@1", "kind": "number", "models": {},
    }  # fmt: skip
    assert (roles["critic-1"], roles["summary"], task.prompt) == ("agent", "agent", "What is 6*7?")


def test_graph_and_batches_of_local_agents_say_the_same():
    nano = TinyAgent.load("nano", dtype="float32", temperature=1.0, max_tokens=16)
    choice = {"generators": nano, "agents": 2, "seed": 4}
    graph, batches = as_graph(**choice), in_batches(**choice)
    assert [turn.reply for turn in graph.turns] == [turn.reply for turn in batches.turns]
    assert graph.turns[0].told.keys() == batches.turns[0].told.keys()


def test_a_recorded_debate_reads_back_as_it_was_played(traces):
    played = run_debates(TASKS[:2], traces=traces, run="a", **seats())
    read = [read_debate(episode) for episode in traces.episodes(run="a")]
    assert [replace(debate, settings={}) for debate in plain(read)] == [
        replace(debate, settings={}) for debate in plain(played)
    ]
    assert [debate.episode for debate in read] == [debate.episode for debate in played]


def test_a_prompt_is_read_back_with_what_was_said_before_the_question():
    debate = as_graph(context=[("system", "Be brief.")], generators=agent("Answer: 42"))
    assert all(turn.messages[0] == {"role": "system", "content": "Be brief."} for turn in debate.turns)


def test_only_debates_that_ended_are_read_back(traces):
    traces.start_episode("x", env="", task=TASKS[0], run="a", settings={})
    [episode] = traces.episodes()
    with pytest.raises(ConfigurationError, match="no debate that ended"):
        read_debate(episode)


# -- runs that go on --------------------------------------------------------------------------------------------


def test_a_finished_run_is_read_back_and_asks_nobody(traces):
    models = seats()
    first = run_debates(TASKS, traces=traces, run="a", **models)
    asked = [len(each.heard) for each in (*models["generators"], *models["critics"], models["summariser"])]
    again = run_debates(TASKS, traces=traces, run="a", batch=2, **models)
    assert plain(again) == plain(first)
    assert [len(each.heard) for each in (*models["generators"], *models["critics"], models["summariser"])] == asked
    assert len(list(traces.episodes())) == len(TASKS)


def test_where_nobody_could_speak_the_question_is_asked_again_in_the_same_episode(traces):
    model = agent(*[RuntimeError("away")] * 3, "Answer: 1")
    [failed] = run_debates(TASKS[:1], generators=model, traces=traces, run="a")
    assert [(e.stopped, e.answer) for e in traces.episodes()] == [("error", "")]
    [debate] = run_debates(TASKS[:1], generators=model, traces=traces, run="a")
    assert (failed.failed, debate.failed, debate.answer, debate.episode) == (True, False, "1", failed.episode)
    [episode] = traces.episodes()
    assert (episode.stopped, episode.error, len(episode.steps)) == ("ended", "", 9)


def test_what_was_said_to_another_prompt_is_asked_again(traces):
    generators = [agent(RuntimeError("away"), "Answer: 5"), agent("Answer: 1"), agent("Answer: 2")]
    critics = agent(*[RuntimeError("away")] * 3, "Answer: 9")
    choice = {"generators": generators, "critics": critics, "summariser": Agent(script=sums_up), "traces": traces}
    [failed] = run_debates(TASKS[:1], run="a", **choice)
    assert failed.failed
    [debate] = run_debates(TASKS[:1], run="a", **choice)
    assert all("Answer: 5" in turn.summary for turn in debate.round(2)[1:])
    [episode] = traces.episodes()
    assert plain([read_debate(episode)]) == plain([debate])


def test_a_question_that_holds_a_secret_is_known_again(traces):
    task = replace(TASKS[0], prompt="How many sign in at postgresql://me:hunter2@db/shop?")
    model = agent("Answer: 1")
    run_debates([task], generators=model, traces=traces, run="a")
    [episode] = traces.episodes()
    assert "hunter2" not in episode.task.prompt
    run_debates([task], generators=model, traces=traces, run="a")
    assert len(model.heard) == 9


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"settings": DebateSettings(seed=9)}, "seed: 0, now 9"),
        ({"settings": DebateSettings(rounds=3)}, "rounds: 2, now 3"),
        ({"pack": "gsm8k"}, "pack"),
        ({"generators": Agent(script=["Answer: 1"], name="other")}, "models"),
    ],
)
def test_a_run_goes_on_only_as_it_began(traces, changed, words):
    run_debates(TASKS[:2], generators=agent("Answer: 1"), traces=traces, run="a")
    with pytest.raises(ConfigurationError, match=words):
        run_debates(TASKS[:2], **{"generators": agent("Answer: 1"), **changed}, traces=traces, run="a")
    other = [replace(TASKS[0], prompt="What is love?")]
    with pytest.raises(ConfigurationError, match="another task '0'"):
        run_debates(other, generators=agent("Answer: 1"), traces=traces, run="a")


def test_two_processes_of_one_label_record_one_debate(tmp_path):
    learned = [replace(task, split="train") for task in TASKS[:2]]

    def slow(prompt):
        time.sleep(0.05)
        return "Answer: 2"

    def play(_):
        with closing(SQLTraceStore(f"sqlite:///{tmp_path / 'traces.db'}")) as traces:
            return run_debates(learned, generators=Agent(script=slow), traces=traces, run="a")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(play, range(2))
    assert [debate.answer for debate in first + second] == ["2"] * 4
    with closing(SQLTraceStore(f"sqlite:///{tmp_path / 'traces.db'}")) as traces:
        assert [(e.task.id, e.stopped) for e in traces.episodes()] == [("0", "ended"), ("1", "ended")]
        sets = debate_sets(traces, tmp_path / "sets", run="a", validation_share=0)
    assert {node: len(list(dataset.examples())) for node, dataset in sets.items()}["generator-0"] == 2


def test_runs_without_a_label_stand_alone(traces):
    for answer in ("Answer: 1", "Answer: 2"):
        [debate] = run_debates(TASKS[:1], generators=agent(answer), traces=traces)
        assert debate.answer == answer[-1]
    assert len(list(traces.episodes())) == 2


def test_a_recording_that_cannot_be_written_is_no_success(traces, tmp_path):
    import sqlite3

    locked = sqlite3.connect(tmp_path / "traces.db")
    locked.execute("DROP TABLE steps")
    locked.commit()
    with pytest.raises(TraceStoreError, match="were not written"):
        run_debates(TASKS[:1], generators=agent("Answer: 1"), traces=traces)


@pytest.mark.slow
@pytest.mark.parametrize("die_at", [5, 20, 40])
def test_a_killed_run_asks_nothing_again_that_was_recorded(tmp_path, die_at):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    command = [sys.executable, mortal_debate.__file__, str(killed), str(die_at)]
    quick = os.environ | {"OMP_NUM_THREADS": "1"}
    died = subprocess.run(command, env=quick, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    store = SQLTraceStore(f"sqlite:///{killed / 'traces.db'}")
    recorded = sum(len(episode.steps) for episode in store.episodes())
    before = (killed / "calls").read_text().splitlines()
    debates = mortal_debate.play(killed)
    calls = (killed / "calls").read_text().splitlines()
    assert plain(debates) == plain(mortal_debate.play(whole, batch=2))
    total = 9 * len(mortal_debate.TASKS)
    assert len(calls) - len(before) == total - recorded
    assert len(list(store.episodes())) == len(mortal_debate.TASKS)
    assert sum(len(episode.steps) for episode in store.episodes()) == total


def test_prompts_of_your_own_are_known_by_their_words(traces):
    own = replace(prompt_pack("arithmetic"), start="Tell me: {question}")
    run_debates(TASKS[:1], generators=agent("Answer: 1"), pack=own, traces=traces, run="a")
    [episode] = traces.episodes()
    assert episode.settings["debate"]["pack"].startswith("arithmetic@1+")
    with pytest.raises(ConfigurationError, match="pack"):
        run_debates(TASKS[:1], generators=agent("Answer: 1"), traces=traces, run="a")
    rules = Rules.of(DebateSettings(), own, 3)
    assert read_debate(episode, rules=rules).turns[0].messages[0]["content"] == f"Tell me: {TASKS[0].prompt}"


def test_halves_of_characters_in_a_question_break_nothing(traces):
    task = Task(id="odd", prompt="What is 1\ud83d+\0 1?")
    for _ in range(2):
        [debate] = run_debates([task], generators=agent("Answer: 2\udc00"), traces=traces, run="a")
        assert debate.answer == "2"
    assert len(list(traces.episodes())) == 1
