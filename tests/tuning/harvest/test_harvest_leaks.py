"""Nothing of an evaluation is ever trained on, and no task is on both sides of the validation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.errors import EmptyHarvestError, LeakError
from cmat_graph.models import ExpertChatModel
from cmat_graph.splits import is_validation
from cmat_graph.tuning.dataset import hash_task
from cmat_graph.tuning.harvest import harvest
from cmat_graph.tuning.harvest.leaks import Guard
from cmat_graph.tuning.harvest.messages import seen_texts
from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Step, Task

ALL = HarvestSettings(validation_share=0)


def play_gold(env, traces, tasks):
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    run_episodes(graph, tasks, env=env, traces=traces)


def record(traces, episode, task, *, reward=1.0):
    """Write a solved episode of one step, as any graph's recorder would."""
    traces.start_episode(episode, env="own", task=task, run="", settings={})
    asked = [{"role": "user", "content": task.prompt}]
    traces.record_step(
        episode,
        Step(key=episode, index=0, attempt=1, node="assistant", messages=asked, completion=f"Reply {episode}."),
    )
    traces.finish_episode(episode, reward=reward, stopped="ended", attempts=1, answer="", error="")


def tasks_of(dataset, part="train"):
    rows = [*dataset.examples(part), *dataset.pairs(part), *dataset.judged(part)]
    return {row.origin.task_id for row in rows}


def test_the_split_of_an_evaluation_is_refused(traces, tmp_path):
    with pytest.raises(LeakError, match="'test' is for evaluation"):
        harvest(traces, tmp_path / "d", settings=replace(ALL, split="test"))


def test_episodes_of_an_evaluation_are_left_out_where_all_splits_are_taken(env, traces, tmp_path):
    play_gold(env, traces, [*env.tasks("train")[:3], *env.tasks("test")[:4]])
    dataset = harvest(traces, tmp_path / "d", settings=replace(ALL, split=None))
    assert tasks_of(dataset) == {task.id for task in env.tasks("train")[:3]}
    assert dataset.manifest["counts"]["episodes left out: split for evaluation"] == 4


def test_held_out_tasks_are_left_out_by_id_and_by_text(env, traces, tmp_path):
    tasks = env.tasks("train")[:4]
    play_gold(env, traces, tasks)
    same_text = Task(id="another", prompt=tasks[1].prompt.upper().replace("\n", "\n\n"))
    dataset = harvest(traces, tmp_path / "d", settings=ALL, held_out=[tasks[0], same_text])
    assert tasks_of(dataset) == {task.id for task in tasks[2:]}
    assert dataset.manifest["counts"]["episodes left out: held-out task"] == 2


def test_a_row_that_holds_the_text_of_a_held_out_task_is_left_out(traces, tmp_path):
    secret = Task(id="s", prompt="Which of the nine harbours lies farthest to the north of Bergen?")
    record(traces, "e1", Task(id="a", prompt=f"Earlier I asked:\n{secret.prompt}\nNow count the harbours of Norway."))
    record(traces, "e2", Task(id="b", prompt="Which of the nine harbours lies farthest to the south of Bergen?"))
    dataset = harvest(traces, tmp_path / "d", settings=replace(ALL, split=None), held_out=[secret])
    assert tasks_of(dataset) == {"b"}
    assert dataset.manifest["counts"]["conversations left out: the text of a held-out task"] == 1


def test_short_texts_are_no_leak_by_chance():
    assert not Guard([Task(id="a", prompt="Say hello.")]).finds(["Please say hello. to everyone"])


def test_validation_tasks_are_the_ones_that_the_gate_plays(env, traces, tmp_path):
    tasks = env.tasks("train")[:30]
    play_gold(env, traces, tasks)
    dataset = harvest(traces, tmp_path / "d")
    kept = {task.id for task in tasks if is_validation(task.id)}
    assert 0 < len(kept) < 15
    assert tasks_of(dataset, "validation") == kept
    assert tasks_of(dataset) == {task.id for task in tasks} - kept


def test_one_text_under_two_ids_goes_to_one_part(traces, tmp_path):
    ids = [f"task-{number}" for number in range(40)]
    one, other = next(i for i in ids if is_validation(i)), next(i for i in ids if not is_validation(i))
    record(traces, "e1", Task(id=other, prompt="Count the lamps."))
    record(traces, "e2", Task(id=one, prompt="count  the LAMPS."))
    record(traces, "e3", Task(id=other + "x", prompt="Count the chairs."))
    dataset = harvest(traces, tmp_path / "d", settings=HarvestSettings(split=None))
    assert tasks_of(dataset, "validation") == {one, other}
    hashes = [{row.origin.task_hash for row in dataset.examples(part)} for part in ("train", "validation")]
    assert hashes == [{hash_task("count the chairs.")}, {hash_task("count the lamps.")}]


def test_a_harvest_of_validation_tasks_alone_says_so(traces, tmp_path):
    only = next(f"task-{number}" for number in range(40) if is_validation(f"task-{number}"))
    record(traces, "e1", Task(id=only, prompt="Count the lamps."))
    with pytest.raises(EmptyHarvestError, match="rows of validation tasks: 1; lower validation_share"):
        harvest(traces, tmp_path / "d", settings=HarvestSettings(split=None))


def test_no_path_and_no_gold_label_is_in_the_folder(env, traces, tmp_path):
    play_gold(env, traces, env.tasks("train")[:3])
    dataset = harvest(traces, tmp_path / "d", settings=ALL)
    texts = [file.read_text() for file in dataset.folder.iterdir()]
    assert not [text for text in texts if str(tmp_path) in text]
    assert json.loads((dataset.folder / "manifest.json").read_text())["sha256"] == dataset.hash


def test_a_general_row_that_asks_an_agents_task_goes_to_the_part_of_that_task(traces, tmp_path):
    only = next(f"task-{number}" for number in range(40) if is_validation(f"task-{number}"))
    record(traces, "e1", Task(id=only, prompt="Count the lamps."))
    free = next(f"task-{number}" for number in range(40) if not is_validation(f"task-{number}"))
    record(traces, "e2", Task(id=free, prompt="Count the chairs."))
    lines = [{"instruction": asked, "output": "Four."} for asked in ("Count the lamps.", "Count the chairs.")]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = HarvestSettings(split=None, eta=0.1, general=str(tmp_path / "g.jsonl"))
    dataset = harvest(traces, tmp_path / "d", settings=settings)
    asked = {part: {e.messages[0]["content"] for e in dataset.examples(part)} for part in ("train", "validation")}
    assert asked == {"train": {"Count the chairs."}, "validation": {"Count the lamps."}}


def test_a_question_asked_in_many_runs_is_one_task_and_its_text_decides(traces, tmp_path):
    for number in range(12):
        record(traces, f"e{number}", Task(id=f"run-{number}", prompt="Count the lamps."))
    assert any(is_validation(f"run-{number}") for number in range(12))
    part = "validation" if is_validation(hash_task("Count the lamps.")) else "train"
    settings = HarvestSettings(split=None, max_per_task=0)
    assert len(list(harvest(traces, tmp_path / "d", settings=settings).examples(part))) == 12


def test_the_words_of_a_held_out_task_are_found_in_calls_and_thoughts_too():
    text = "Which of the ten green bottles fell from the wall first?"
    guard = Guard([Task(id="held", prompt=text), Task(id="short", prompt="Add 1 and 2")])
    call = {"name": "search", "args": {"queries": [{"q": f"quick: {text.upper()}"}]}, "id": "1"}
    said = {"role": "assistant", "content": ""}
    assert guard.finds(seen_texts([{**said, "tool_calls": [call]}]))
    assert guard.finds(seen_texts([{**said, "reasoning": f"They ask: {text}"}]))
    assert not guard.finds(seen_texts([said]), whole="Add 1 and 3")
    assert guard.finds([], whole="add  1 AND 2")


def test_a_general_row_that_is_a_short_held_out_task_is_left_out(traces, tmp_path):
    for number in range(3):
        record(traces, f"e{number}", Task(id=f"own-{number}", prompt=f"Task {number} of the agent", split="train"))
    rows = [{"instruction": asked, "output": "3"} for asked in ("Add 1 and 2", "Add 2 and 2")]
    (tmp_path / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = replace(ALL, eta=0.01, general=str(tmp_path / "general.jsonl"))
    dataset = harvest(traces, tmp_path / "d", settings=settings, held_out=[Task(id="x", prompt="add 1 and 2")])
    assert {e.messages[0]["content"] for e in dataset.examples() if e.kind == "general"} == {"Add 2 and 2"}


def test_an_augmented_row_never_says_another_task(traces, tmp_path):
    mine, other, held = "Count the lamps in the hall", "Please count the lamps in the hall", "Say how many lamps it has"
    record(traces, "e1", Task(id="mine", prompt=mine, split="train"))
    record(traces, "e2", Task(id="other", prompt=other, split="train"))
    settings = replace(ALL, augment=("paraphrase",))
    for worded, told in ((other, 1), (held, 2)):
        dataset = harvest(
            traces,
            tmp_path / "d",
            settings=settings,
            held_out=[Task(id="held", prompt=held)],
            paraphraser=lambda text, worded=worded: worded,
        )
        asked = [e.messages[0]["content"] for e in dataset.examples() if e.origin.augmented]
        assert worded not in asked
        assert dataset.manifest["counts"]["copies left out: the text of another task"] == told


def test_a_held_out_id_is_refused_under_other_words_too(traces, tmp_path):
    for number in range(2):
        record(traces, f"e{number}", Task(id=f"t{number}", prompt=f"Task {number} of the agent", split="train"))
    dataset = harvest(traces, tmp_path / "d", settings=ALL, held_out=[Task(id="t0", prompt="In other words")])
    assert tasks_of(dataset) == {"t1"}


def test_pairs_and_judged_replies_of_validation_tasks_are_not_trained_on(traces, tmp_path):
    tasks = [Task(id=f"t{number}", prompt=f"Task {number} of the agent", split="train") for number in range(30)]
    for task in tasks:
        record(traces, f"good-{task.id}", task)
        record(traces, f"bad-{task.id}", task, reward=0.0)
    dataset = harvest(traces, tmp_path / "d", settings=HarvestSettings(validation_share=0.3))
    kept = {task.id for task in tasks if is_validation(task.id, 0.3)}
    for part, expected in (("train", {task.id for task in tasks} - kept), ("validation", kept)):
        for rows in (dataset.examples(part), dataset.pairs(part), dataset.judged(part)):
            assert {row.origin.task_id for row in rows} == expected
