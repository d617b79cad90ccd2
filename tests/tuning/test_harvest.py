from __future__ import annotations

import json
from collections import Counter

import pytest

from cmat_graph import AdapterRegistry, create_cmat_graph, run_episodes
from cmat_graph.envs.dbbench import answer, operation
from cmat_graph.errors import ConfigurationError, EmptyHarvestError
from cmat_graph.models import ExpertChatModel
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.tuning import LoraSettings, distill
from cmat_graph.tuning.curate import curate
from cmat_graph.tuning.harvest import harvest
from cmat_graph.tuning.old_dataset import SFTExample, hash_examples, write_dataset


def play_gold(env, traces, *, count=4, split="train"):
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    run_episodes(graph, env.tasks(split)[:count], env=env, traces=traces, run="expert")


def test_solved_episodes_become_examples(env, traces):
    play_gold(env, traces)
    examples, counts = harvest(traces.episodes())
    gold = [reply for task in env.tasks("train")[:4] for reply in env.demonstrations()[task.prompt]]
    assert sorted(e.completion for e in examples) == sorted(gold)
    assert counts == {"episodes": 4, "steps": len(gold)}


def test_failed_episodes_teach_nothing(env, traces):
    graph = create_cmat_graph(ScriptedChatModel(replies=["OK"]), max_attempts=1).compile()
    run_episodes(graph, env.tasks()[:2], env=env, traces=traces)
    assert harvest(traces.episodes()) == ([], Counter({"episodes": 2, "episodes left out: not solved": 2}))


def test_a_mistake_stays_context_and_is_no_target(env, traces):
    task = next(t for t in env.tasks() if t.category == "UPDATE")
    right, done = env.demonstrations()[task.prompt]
    wrong = operation("UPDATE `Nowhere` SET `a` = '1'", "Guess.")
    failed_first = create_cmat_graph(ScriptedChatModel(replies=[wrong, right, done])).compile()
    run_episodes(failed_first, [task], env=env, traces=traces, run="failed")
    sent_back = create_cmat_graph(ScriptedChatModel(replies=[wrong, right, done]), checker="probes").compile()
    run_episodes(sent_back, [task], env=env, traces=traces, run="sent back")
    for run in ("failed", "sent back"):
        examples, _ = harvest(traces.episodes(run=run))
        assert [e.completion for e in examples] == [right, done]
        assert wrong in [m["content"] for m in examples[0].prompt]


def test_a_forced_step_is_no_target_even_if_the_attempt_passed(env, traces):
    task = next(t for t in env.tasks() if t.category == "UPDATE")
    right, done = env.demonstrations()[task.prompt]
    judge = ScriptedChatModel(replies=["approve", "revise", "revise", "approve"])
    graph = create_cmat_graph(
        ScriptedChatModel(replies=[right, done]), checker=judge, max_revisions=1, max_attempts=1
    ).compile()
    run_episodes(graph, [task], env=env, traces=traces)
    examples, counts = harvest(traces.episodes())
    assert [e.completion for e in examples] == [right]
    assert counts["steps left out: forced"] == 1


def test_only_the_last_attempt_teaches(env, traces):
    task = next(t for t in env.tasks() if t.category == "UPDATE")
    right, done = env.demonstrations()[task.prompt]
    look = operation("SELECT 1", "Look.")
    bad = operation("SELECT * FROM `Nowhere`", "Guess.")
    model = ScriptedChatModel(replies=[look, bad, answer(["?"], "Give up."), right, done])
    run_episodes(create_cmat_graph(model, max_attempts=2).compile(), [task], env=env, traces=traces)
    examples, counts = harvest(traces.episodes())
    assert [e.completion for e in examples] == [right, done]
    assert counts["steps left out: earlier attempt"] == 3


def example(prompt="p", completion="c", task="t"):
    return SFTExample(prompt=[{"role": "user", "content": prompt}], completion=completion, task_id=task, episode_id="e")


def test_repeats_and_surplus_are_left_out_and_counted():
    counts = Counter()
    kept = curate([example(), example(), *(example(completion=str(i)) for i in range(5))], counts, max_per_task=3)
    assert [e.completion for e in kept] == ["c", "0", "1"]
    assert counts == {"examples left out: repeated": 1, "examples left out: task has enough": 3, "examples": 3}


def test_the_hash_is_of_the_content_not_of_the_order():
    assert hash_examples([example("a"), example("b")]) == hash_examples([example("b"), example("a")])
    assert hash_examples([example("a")]) != hash_examples([example("a", "other")])


def test_the_dataset_has_trls_columns(tmp_path):
    digest = write_dataset([example()], tmp_path / "d", counts={"episodes": 1})
    row = json.loads((tmp_path / "d" / "dataset.jsonl").read_text())
    assert row["prompt"] == [{"role": "user", "content": "p"}]
    assert row["completion"] == [{"role": "assistant", "content": "c"}]
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert (manifest["sha256"], manifest["rows"], manifest["counts"]) == (digest, 1, {"episodes": 1})


def test_an_empty_harvest_says_what_was_left_out(env, traces, tmp_path):
    registry = AdapterRegistry(tmp_path)
    with pytest.raises(EmptyHarvestError, match="no episodes at all"):
        distill(traces, registry)
    graph = create_cmat_graph(ScriptedChatModel(replies=["OK"]), max_attempts=1).compile()
    run_episodes(graph, env.tasks("train")[:2], env=env, traces=traces)
    with pytest.raises(EmptyHarvestError, match="not solved: 2"):
        distill(traces, registry)


def test_test_tasks_are_not_trained_on_by_default(env, traces, tmp_path):
    play_gold(env, traces, split="test")
    with pytest.raises(EmptyHarvestError):
        distill(traces, AdapterRegistry(tmp_path))


def test_settings_and_nodes_are_checked(traces, tmp_path):
    with pytest.raises(ConfigurationError):
        LoraSettings(epochs=0)
    with pytest.raises(ConfigurationError, match="known: assistant"):
        distill(traces, AdapterRegistry(tmp_path), node="nobody")
