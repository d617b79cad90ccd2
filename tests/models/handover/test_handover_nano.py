"""The same with a real model: TinyAgent-nano over built-in tasks."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cmat_graph import AdapterCard, AdapterRegistry, create_cmat_graph, run_episodes
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.cli import cli
from cmat_graph.envs import load_env
from cmat_graph.models import ExpertChatModel
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.handover import HandOver, Trial
from cmat_graph.models.handover.calibrating import calibrate, confident_episodes

TASKS = 64


@pytest.fixture(scope="module")
def tasks():
    env = load_env("database", size=256, seed=11)
    return env, env.tasks("test")[:TASKS]


@pytest.fixture
def registry(tmp_path):
    """Hold an adapter that changes nothing: how LoRA begins."""
    registry = AdapterRegistry(tmp_path / "adapters")
    card = AdapterCard(name="new", node="assistant", base="nano", base_hash=hash_base(resolve_base("nano")))

    def write(folder):
        base = AutoModelForCausalLM.from_pretrained(resolve_base("nano"))
        get_peft_model(base, LoraConfig(r=4, target_modules="all-linear")).save_pretrained(folder)
        return card

    registry.add(card, write)
    return registry


def rate(outcomes):
    return sum(outcome.reward >= 1.0 for outcome in outcomes) / len(outcomes)


def test_its_confidence_tells_solved_from_failed_and_handing_over_helps(tasks, registry, traces):
    env, some = tasks
    small = TinyAgent.load("nano", adapter="new", adapters=registry)
    graph = create_cmat_graph(small, max_attempts=1).compile()
    alone = rate(run_episodes(graph, some, env=env, traces=traces))

    card = registry.get("new")
    told, left_out = confident_episodes(traces.episodes(), card)
    solved = [sure for _, sure, success in told if success]
    failed = [sure for _, sure, success in told if not success]
    assert (len(told), left_out) == (TASKS, {})
    assert sum(a > b for a in solved for b in failed) / (len(solved) * len(failed)) > 0.85  # the AUC

    done = calibrate(traces, registry, "new")
    assert done.ece_after < 0.2
    again = TinyAgent.load("nano", adapter=registry.get("new"))
    metadata = again.invoke(some[0].prompt).response_metadata
    assert metadata["confidence"] != metadata["raw_confidence"]

    pair = HandOver(primary=again, fallback=ExpertChatModel(demonstrations=env.demonstrations()), threshold=0.8)
    graph = create_cmat_graph(pair, max_attempts=1).compile()
    together = rate(run_episodes(graph, some, env=env, traces=traces, run="pair"))
    assert together > max(0.85, alone + 0.2)
    assert 0 < pair.counts["unsure"] < pair.counts["replies"]
    answered = {step.model for episode in traces.episodes(run="pair") for step in episode.steps}
    assert answered == {"nano", "expert"}


def test_the_command_hands_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = [
        "run",
        "--size",
        "128",
        "--split",
        "test",
        "--limit",
        "8",
        "--fallback",
        "expert",
        "--fallback-below",
        "0.99",
        "--json",
    ]
    done = CliRunner().invoke(cli, asked)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["success_rate"] == 1.0
    assert told["handed_over"]["replies"] >= told["handed_over"]["unsure"] > 0


def test_an_adapter_is_tried_beside_the_base(tasks, registry):
    env, some = tasks
    trial = Trial.load(registry, "new", share=0.5)
    run_episodes(create_cmat_graph(trial, max_attempts=1).compile(), some[:24], env=env)
    counted = trial.result().outcomes
    assert counted["current"].episodes + counted["candidate"].episodes == 24
    assert counted["candidate"].episodes > 0
    assert (registry.root / "assistant" / "trial.jsonl").is_file()
    shadow = Trial.load(registry, "new", mode="shadow", share=1.0, name="beside")
    shadow.invoke(some[0].prompt)
    shadow.wait()
    assert shadow.result().beside == {"agreed": 1}


@pytest.mark.parametrize("adapter", ["", "new"])
def test_a_choice_is_as_sure_as_it_is_among_the_choices(adapter, registry):
    """It was near 0, as if all other words could have come."""
    model = TinyAgent.load("nano", adapter=adapter or None, adapters=registry)
    for choices in (["yes", "no"], ["red", "green", "blue"]):
        reply = model.invoke("Is 7 prime?", choices=choices)
        assert reply.text in choices
        assert 0.2 <= reply.response_metadata["confidence"] <= 1.0
    pair = HandOver(primary=model, fallback=ExpertChatModel(demonstrations={}), threshold=0.2)
    assert pair.invoke("Is 7 prime?", choices=["yes", "no"]).text in ("yes", "no")
    assert pair.counts == {"replies": 1}
    only = model.invoke("Is 7 prime?", choices=["yes"])
    assert only.response_metadata["confidence"] == pytest.approx(1.0)
