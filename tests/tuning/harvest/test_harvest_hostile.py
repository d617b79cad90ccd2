"""Records that mislead: ids that come again, replies nested without end, weights that are no numbers, no rewards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from cmat_graph.errors import ConfigurationError, DatasetError, EmptyHarvestError
from cmat_graph.tuning.harvest import distil, harvest
from cmat_graph.tuning.harvest.outcomes import acts_of
from cmat_graph.tuning.harvest.sketch import likeness
from cmat_graph.tuning.harvest.wording import reason_first
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Episode, Reflection, Step, Task

ALL = HarvestSettings(validation_share=0, split=None)
DEEP = "[" * 100_000
ASKED = {"role": "user", "content": "How many lamps are in the hall?"}
APPROVED = {"phase": "before", "decision": "approve", "passed": True, "score": 1.0, "reason": "Fine.", "hint": ""}
JUDGE = {**APPROVED, "category": "ok", "source": "model"}


def record(traces, episode, steps, *, reward=1.0, answer="", prompt=ASKED["content"], reflections=()):
    traces.start_episode(episode, env="own", task=Task(id=prompt, prompt=prompt), run="", settings={})
    for step in steps:
        traces.record_step(episode, step)
    for reflection in reflections:
        traces.record_reflection(episode, reflection)
    traces.finish_episode(episode, reward=reward, stopped="ended", attempts=1, answer=answer, error="")


def step(index, completion="", *, messages=(ASKED,), node="assistant", **more):
    more = {"attempt": 1, **more}
    return Step(key="", index=index, node=node, messages=list(messages), completion=completion, **more)


def turns(*results, name="0", node="assistant"):
    """Return steps that each call a tool under the same id, with what came of it in the next prompt."""
    messages, steps = [ASKED], []
    for index, error in enumerate(results):
        calls = [{"name": "look", "args": {"try": index}, "id": name}]
        steps.append(step(index, messages=messages, tool_calls=calls, node=node))
        said = {"role": "tool", "content": "x", "tool_call_id": name, **({"error": True} if error else {})}
        messages = [*messages, {"role": "assistant", "content": "", "tool_calls": calls}, said]
    return [*steps, step(len(results), "Four.", messages=messages, node=node)]


@pytest.mark.parametrize("results", [(True, False), (False, True), (True, True, False), (False, False, True)])
def test_ids_that_a_server_gives_again_do_not_mix_up_what_became_of_calls(results):
    episode = Episode(id="e", env="", task=Task(id="t", prompt=""), steps=turns(*results))
    told = ["failed" if error else "good" for error in results]
    assert [act.outcome for act in acts_of(episode, "assistant")] == [*told, "good"]


def test_a_call_of_another_node_or_attempt_says_nothing_about_this_one():
    mine = turns(True)
    others = [replace(each, index=each.index + 2, node="other") for each in turns(False)]
    later = [replace(each, index=each.index + 4, attempt=2) for each in turns(False)]
    episode = Episode(id="e", env="", task=Task(id="t", prompt=""), steps=[*mine, *others, *later])
    assert [act.outcome for act in acts_of(episode, "assistant")] == ["failed", "good", "good", "good"]
    assert [act.outcome for act in acts_of(episode, "other")] == ["good", "good"]


def test_what_only_another_node_was_shown_counts_too():
    steps = turns(True)
    steps[-1] = replace(steps[-1], node="writer")
    episode = Episode(id="e", env="", task=Task(id="t", prompt=""), steps=steps)
    assert [act.outcome for act in acts_of(episode, "assistant")] == ["failed"]


def test_without_a_reward_no_verdict_has_a_label(traces, tmp_path):
    asked = [{"role": "user", "content": "Judge this action before it runs: look"}]
    steps = [
        step(0, "look", before=JUDGE, observation="ok"),
        step(1, '{"verdict": "approve"}', messages=asked, node="checker"),
    ]
    record(traces, "e", steps, reward=None)
    with pytest.raises(EmptyHarvestError, match="an attempt without a reward: 1"):
        harvest(traces, tmp_path / "d", settings=replace(ALL, node="checker", min_reward=0))


def test_without_a_reward_no_lesson_has_a_weight(traces, tmp_path):
    steps = [
        step(0, "wrong", observation="no", observation_error=True),
        step(1, "Look at the hall first of all.", node="reflect"),
        step(2, "right", observation="ok"),
    ]
    lesson = Reflection(text="Look at the hall first of all.", task="t", attempt=1)
    record(traces, "e", steps, reward=None, reflections=[lesson])
    with pytest.raises(EmptyHarvestError, match="an attempt without a reward: 1"):
        harvest(traces, tmp_path / "d", settings=replace(ALL, node="reflect", min_reward=0))


def test_a_verdict_in_an_attempt_without_an_action_judges_nothing(traces, tmp_path):
    asked = [{"role": "user", "content": "Judge this action before it runs: look"}]
    verdicts = [step(at, "{}", messages=asked, node="checker", attempt=attempt) for at, attempt in ((1, 1), (2, 2))]
    record(traces, "e", [step(0, "look", before=JUDGE, observation="no", observation_error=True), *verdicts], reward=0)
    with pytest.raises(EmptyHarvestError, match="all 1 verdicts are 'revise'"):
        harvest(traces, tmp_path / "d", settings=replace(ALL, node="checker"))


def test_a_lesson_weighs_only_what_was_gained_over_the_attempt_before(traces, tmp_path):
    scored = {**JUDGE, "phase": "after", "decision": "revise", "passed": False, "score": 0.25, "source": "reward"}
    steps = [
        step(0, "half", observation="ok", after=scored),
        step(1, "Look at the hall first of all.", node="reflect"),
        step(2, "whole", observation="ok", attempt=2),
    ]
    lesson = Reflection(text="Look at the hall first of all.", task="t", attempt=1)
    record(traces, "e", steps, reflections=[lesson])
    (example,) = harvest(traces, tmp_path / "d", settings=replace(ALL, node="reflect")).examples()
    assert example.messages[-1]["weight"] == 0.75


def test_a_lesson_that_was_not_kept_is_no_target(traces, tmp_path):
    said = step(1, "Look at the hall first of all.", node="reflect")
    record(traces, "e", [step(0, "x", observation="ok"), said, step(2, "y", observation="ok", attempt=2)])
    with pytest.raises(EmptyHarvestError, match="the lesson was not kept: 1"):
        harvest(traces, tmp_path / "d", settings=replace(ALL, node="reflect"))


@pytest.mark.parametrize("deep", [DEEP, '{"a":' * 100_000])
def test_replies_and_answers_that_nest_without_end_are_texts(traces, tmp_path, deep):
    lesson = {"role": "system", "content": "Lessons from earlier attempts:\n- look"}
    record(traces, "e", [step(0, deep, messages=[lesson, ASKED])], answer=deep)
    settings = replace(ALL, max_chars=10**7)
    assert [e.messages[-1]["content"] for e in harvest(traces, tmp_path / "d", settings=settings).examples()] == [deep]


def test_a_turn_after_a_lesson_that_quotes_the_answer_is_no_target(traces, tmp_path):
    for number, told in enumerate(("Libreville", "the capital")):
        lesson = {"role": "system", "content": f"Lessons from earlier attempts:\n- It was {told}."}
        steps = [step(0, f"Libreville, found in way {number}", messages=[lesson, ASKED])]
        record(traces, f"e{number}", steps, answer='["Libreville"]', prompt=f"Which city {number}?")
    dataset = harvest(traces, tmp_path / "d", settings=ALL)
    assert [e.origin.episodes for e in dataset.examples()] == [("e1",)]
    assert dataset.manifest["counts"]["steps left out: a lesson quotes the answer"] == 1


def test_what_was_good_once_is_never_the_worse_reply_of_a_pair(traces, tmp_path):
    for number, (reply, reward) in enumerate((("Four.", 1.0), ("Four.", 0.0), ("Five.", 1.0), ("Six.", 0.0))):
        record(traces, f"e{number}", [step(0, reply)], reward=reward)
    pairs = list(harvest(traces, tmp_path / "d", settings=ALL).pairs())
    assert [(pair.chosen["content"], pair.rejected["content"]) for pair in pairs] == [("Five.", "Six.")]


def test_an_import_cannot_say_that_a_turn_counts_without_end(traces, tmp_path):
    for number, weight in enumerate(("much", 1e999, -3, 0.5)):
        told = {"weight": weight}
        record(traces, f"e{number}", [step(0, f"Reply {number}.", told=told)], prompt=f"Task {number}")
    examples = harvest(traces, tmp_path / "d", settings=ALL).examples()
    assert [e.messages[-1]["weight"] for e in examples] == [1.0, 1.0, 0.5]


def test_a_turn_with_two_actions_is_not_turned_round():
    text = "Action: look\nThought: Now I go.\nAction: go"
    assert reason_first({"role": "assistant", "content": text})["content"] == text
    code = "Action: write\n```sql\nSELECT '\nThought: none\n'\n```"
    assert reason_first({"role": "assistant", "content": code})["content"] == code


def test_turns_that_a_general_file_takes_out_of_the_loss_stay_out(traces, tmp_path):
    record(traces, "e", [step(0, "Four.")])
    told = [
        {"role": "user", "content": "Say a"},
        {"role": "assistant", "content": "a!", "weight": 0},
        {"role": "user", "content": "Say b"},
        {"role": "assistant", "content": "b", "weight": 1},
    ]
    flagged = [{"from": "human", "value": "c"}, {"from": "gpt", "value": "OK", "loss": False}]
    flagged += [{"from": "human", "value": "d"}, {"from": "gpt", "value": "D", "loss": True}]
    lines = [json.dumps({"messages": told}), json.dumps({"conversations": flagged})]
    (tmp_path / "general.jsonl").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    settings = replace(ALL, eta=0, general=str(tmp_path / "general.jsonl"))
    examples = harvest(traces, tmp_path / "d", settings=settings).examples()
    assert [[e.messages[at]["content"] for at in e.targets] for e in examples] == [["b"], ["D"]]


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"[" * 100_000, b'{"messages": [1]}', b"7"])
def test_a_general_line_that_is_no_text_is_named(traces, tmp_path, bad):
    record(traces, "e", [step(0, "Four.")])
    (tmp_path / "general.jsonl").write_bytes(bad + b"\n")
    with pytest.raises(DatasetError, match=r"general\.jsonl, line 1"):
        harvest(traces, tmp_path / "d", settings=replace(ALL, eta=0.5, general=str(tmp_path / "general.jsonl")))


def test_the_folder_one_stands_in_is_no_place_for_a_dataset(traces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (".", "..", tmp_path):
        with pytest.raises(ConfigurationError, match="name a folder for the dataset"):
            harvest(traces, folder, settings=ALL)


def test_choosing_from_many_rows_of_one_task_compares_each_with_each_at_most_once(traces, tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(distil, "likeness", lambda one, other: compared.append(1) or likeness(one, other))
    for number in range(80):
        words = " ".join(f"w{(number * 7919 + at * 104729) % 99991}" for at in range(20))
        record(traces, f"e{number}", [step(0, words)])
    dataset = harvest(traces, tmp_path / "d", settings=replace(ALL, max_per_task=40, near_equal=1))
    assert dataset.manifest["rows"]["sft.train"] == 40
    assert len(compared) <= 40 * 80


def test_what_a_killed_harvest_left_is_cleared_away_and_what_a_living_one_has_is_not(traces, tmp_path):
    record(traces, "e", [step(0, "Four.")])
    code = (
        "import os, signal, sys, time\n"
        "from cmat_graph.traces import SQLTraceStore\n"
        "from cmat_graph.tuning.harvest import harvest, run\n"
        "def die(*told, **more):\n"
        "    print('here', flush=True)\n"
        "    time.sleep(60) if sys.argv[3] == 'waits' else os.kill(os.getpid(), signal.SIGKILL)\n"
        "run.collect = die\n"
        "harvest(SQLTraceStore(sys.argv[1]), sys.argv[2])\n"
    )
    words = [sys.executable, "-c", code, traces.url, str(tmp_path / "d")]
    died = subprocess.run([*words, "dies"], stdout=subprocess.DEVNULL, check=False)
    assert died.returncode == -signal.SIGKILL
    (dead,) = [path for path in tmp_path.glob(".d-*") if path.is_dir()]
    with subprocess.Popen([*words, "waits"], stdout=subprocess.PIPE) as living:
        assert living.stdout.readline() == b"here\n"
        assert not dead.exists()
        (alive,) = [path for path in tmp_path.glob(".d-*") if path.is_dir()]
        harvest(traces, tmp_path / "d", settings=ALL)
        assert alive.is_dir()
        living.kill()
    harvest(traces, tmp_path / "d", settings=ALL)
    assert not list(tmp_path.glob(".d-*"))


def test_a_dataset_that_a_killed_harvest_had_put_aside_is_put_back(traces, tmp_path):
    """Killed between two renamings; the next harvest finds nothing, and must not take the old dataset away."""
    record(traces, "e", [step(0, "Four.")])
    harvest(traces, tmp_path / "d", settings=ALL)
    (tmp_path / ".d-0123abcd.lock").touch()
    (tmp_path / "d").rename(tmp_path / ".d-0123abcd-old")
    with pytest.raises(EmptyHarvestError):
        harvest(traces, tmp_path / "d", settings=replace(ALL, run="nobody"))
    assert (tmp_path / "d" / "manifest.json").is_file()
    assert [path.name for path in tmp_path.glob(".d*")] == []
