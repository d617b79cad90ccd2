"""A real LoRA, trained with TRL and PEFT on the bundled model, put back into the graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmat_graph import AdapterRegistry, create_cmat_graph, run_episodes
from cmat_graph.errors import AdapterMismatchError, EmptyHarvestError
from cmat_graph.models import ExpertChatModel
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.tuning import LoraSettings, distill

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def distilled(env, tmp_path_factory):
    from cmat_graph.traces import SQLTraceStore

    folder = tmp_path_factory.mktemp("distil")
    traces = SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    run_episodes(graph, env.tasks("train")[:24], env=env, traces=traces, run="expert")
    registry = AdapterRegistry(folder / "adapters")
    steps = []
    card = distill(
        traces,
        registry,
        settings=LoraSettings(epochs=8, batch_size=8),
        progress=lambda step, total, loss: steps.append((step, total)),
    )
    return registry, card, steps, traces


def test_the_loss_falls_and_the_card_says_how(distilled):
    registry, card, steps, _ = distilled
    assert card.loss[-1] < card.loss[0] / 2
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert registry.get("assistant") == card
    assert card.examples == card.counts["examples"] > 24
    assert {"torch", "peft", "trl", "cmat-graph"} <= set(card.versions)
    assert len(card.base_hash) == len(card.dataset_hash) == 64


def test_nothing_in_the_folder_names_a_path(distilled):
    _, card, _, _ = distilled
    texts = [path.read_text() for path in Path(card.folder).rglob("*") if path.suffix in (".json", ".jsonl", ".md")]
    assert len(texts) >= 4
    assert not [text for text in texts if "models/nano" in text or str(Path(card.folder).parents[2]) in text]


def test_the_node_is_replaced_and_the_base_is_still_there(distilled, env):
    _, card, _, traces = distilled
    base, tuned = TinyAgent.load("nano"), TinyAgent.load(card)
    task = env.tasks("train")[0]
    before = base.invoke(task.prompt).text
    run_episodes(create_cmat_graph(tuned).compile(), env.tasks("train")[:8], env=env, traces=traces, run="tuned")
    assert {step.adapter for e in traces.episodes(run="tuned") for step in e.steps} == {card.id}
    assert sum(e.solved for e in traces.episodes(run="tuned")) >= 4
    assert base.invoke(task.prompt).text == before


def test_calls_with_and_without_the_adapter_may_mix(distilled, env):
    _, card, _, _ = distilled
    base, tuned = TinyAgent.load("nano"), TinyAgent.load(card)
    prompts = [task.prompt for task in env.tasks()[:6]]
    alone = [[model.invoke(p).text for p in prompts] for model in (base, tuned)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(12) as pool:
        calls = [[pool.submit(model.invoke, p) for p in prompts] for model in (base, tuned)]
    assert [[call.result().text for call in row] for row in calls] == alone


def test_the_served_prompt_is_the_trained_prompt(distilled, env):
    _, card, _, _ = distilled
    row = json.loads(Path(card.folder, "dataset", "dataset.jsonl").read_text().splitlines()[0])
    tokenizer = TinyAgent.load("nano").engine.tokenizer
    whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    served = TinyAgent.load("nano").engine.encode(row["prompt"])
    assert whole.startswith(tokenizer.decode(served))
    assert whole == tokenizer.decode(served) + row["completion"][0]["content"] + tokenizer.eos_token


def test_an_adapter_of_another_base_is_refused(distilled):
    from dataclasses import replace

    _, card, _, _ = distilled
    with pytest.raises(AdapterMismatchError, match="was trained on"):
        TinyAgent.load("nano", adapter=replace(card, base_hash="0" * 64))
    with pytest.raises(AdapterMismatchError, match="was trained on"):
        TinyAgent.load("nano", adapter=replace(card, base="Qwen/Qwen3-0.6B", base_hash=""))


def test_two_adapters_of_one_name_do_not_answer_for_each_other(distilled, env, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    _, card, _, _ = distilled
    shutil.copytree(card.folder, tmp_path / "assistant" / card.name)
    file = tmp_path / "assistant" / card.name / "adapter_model.safetensors"
    save_file({name: weights * 0 for name, weights in load_file(file).items()}, file)
    other = AdapterRegistry(tmp_path).get(card.name)
    assert other.id == card.id
    prompt = env.tasks("train")[0].prompt
    first = TinyAgent.load(card)
    before = first.invoke(prompt).text
    assert TinyAgent.load(other).invoke(prompt).text == TinyAgent.load("nano").invoke(prompt).text
    assert first.invoke(prompt).text == before


def test_examples_past_the_limit_are_left_out_never_cut(distilled):
    registry, _, _, traces = distilled
    with pytest.raises(EmptyHarvestError, match="longer than 8 tokens"):
        distill(traces, registry, name="none", settings=LoraSettings(max_length=8))
    assert [card.name for card in registry.list()] == [registry.get("assistant").name]
