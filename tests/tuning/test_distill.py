"""From recorded episodes to a registered adapter, with real training of the bundled model, and back into the graph."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import forked
import pytest

from cmat_graph import AdapterCard, AdapterRegistry, create_cmat_graph, run_episodes
from cmat_graph.errors import AdapterMismatchError, ConfigurationError, DatasetError, EmptyHarvestError
from cmat_graph.models import ExpertChatModel
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.splits import is_validation
from cmat_graph.traces import SQLTraceStore
from cmat_graph.tuning import Dataset, TrainSettings, distill
from cmat_graph.tuning.distill import check_init, tasks_of

QUICK = TrainSettings(epochs=8, batch_size=8, save_steps=4)


def record(env, traces, size=24):
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    run_episodes(graph, env.tasks("train")[:size], env=env, traces=traces, run="expert")


@pytest.fixture(scope="module")
def distilled(env, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil")
    traces = SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")
    record(env, traces)
    registry = AdapterRegistry(folder / "adapters")
    steps = []
    card = distill(traces, registry, settings=QUICK, progress=lambda step, total, loss: steps.append((step, total)))
    return registry, card, steps, traces


# -- what is refused, before anything heavy ----------------------------------------------------------------------


def test_mistakes_are_named_before_anything_is_trained(env, traces, tmp_path):
    registry = AdapterRegistry(tmp_path / "adapters")
    with pytest.raises(EmptyHarvestError, match="no episodes at all"):
        distill(traces, registry)
    with pytest.raises(ConfigurationError, match="no name for a node or adapter"):
        distill(traces, registry, name="../x")
    with pytest.raises(ConfigurationError, match="nothing to train on: give traces"):
        distill(None, registry)
    with pytest.raises(DatasetError, match="no dataset in"):
        distill(None, registry, dataset=tmp_path / "nowhere")
    record(env, traces, size=8)
    with pytest.raises(EmptyHarvestError, match=r"nothing to train 'assistant' on with dpo.*--objective sft"):
        distill(traces, registry, settings=TrainSettings(objective="dpo"))
    assert registry.list() == []


def test_two_at_once_do_not_take_each_others_checkpoints_away(env, traces, tmp_path):
    registry = AdapterRegistry(tmp_path / "adapters")
    record(env, traces, size=8)
    (registry.root / "assistant").mkdir(parents=True)
    with (registry.root / "assistant" / ".one.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another process trains assistant/one; wait for it"):
            distill(traces, registry, name="one")


@pytest.mark.parametrize("told", [{"node": "checker"}, {"settings": {"node": "checker"}}])
def test_a_dataset_goes_to_the_seat_it_was_made_for(tmp_path, told):
    (tmp_path / "manifest.json").write_text(json.dumps({"sha256": "0", "rows": {}, **told}))
    with pytest.raises(EmptyHarvestError, match="nothing to train 'checker' on"):
        distill(None, AdapterRegistry(tmp_path / "adapters"), dataset=tmp_path)
    with pytest.raises(EmptyHarvestError, match="nothing to train 'mine' on"):
        distill(None, AdapterRegistry(tmp_path / "adapters"), node="mine", dataset=tmp_path)


def test_it_goes_on_only_from_an_adapter_of_the_same_base_and_method(traces, tmp_path):
    other = AdapterCard(name="one", node="assistant", base="org/other", base_hash="0" * 64)
    with pytest.raises(AdapterMismatchError, match="was trained on org/other, not on nano"):
        distill(traces, AdapterRegistry(tmp_path), init=other)
    dora = AdapterCard(name="one", node="assistant", base="nano", method="dora")
    with pytest.raises(AdapterMismatchError, match="--method dora"):
        distill(traces, AdapterRegistry(tmp_path), init=dora)


# -- one adapter -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_loss_falls_and_the_card_says_how(distilled):
    registry, card, steps, _ = distilled
    assert card.loss[-1] < card.loss[0] / 2
    assert card.validation_loss[-1] < card.validation_loss[0]
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert registry.get("assistant") == card
    assert card.tokens > 1000
    assert {"torch", "peft", "trl", "cmat-graph"} <= set(card.versions)
    assert [len(each) for each in (card.base_hash, card.dataset_hash, card.template_hash, card.episodes_hash)] == [
        64
    ] * 4
    assert card.counts["episodes"] == 24
    assert (card.harvest["seed"], card.settings["seed"], card.settings["epochs"]) == (0, 0, 8)
    assert card.verdict == "not judged"


@pytest.mark.slow
def test_the_card_names_the_episodes_and_no_validation_task_taught(distilled, env):
    _, card, _, traces = distilled
    known = {episode.id: episode.task.id for episode in traces.episodes()}
    assert card.episode_count == len(card.episodes)
    assert set(card.episodes) <= set(known)
    kept = {task.id for task in env.tasks("train")[:24] if is_validation(task.id)}
    assert kept
    assert not tasks_of(card) & kept
    assert tasks_of(card) >= {known[episode] for episode in card.episodes} - kept


@pytest.mark.slow
def test_nothing_in_the_folder_names_a_path(distilled):
    _, card, _, _ = distilled
    texts = [path.read_text() for path in Path(card.folder).rglob("*") if path.suffix in (".json", ".jsonl", ".md")]
    assert len(texts) >= 4
    assert not [text for text in texts if "models/nano" in text or str(Path(card.folder).parents[2]) in text]
    assert [path.name for path in Path(card.folder).parent.iterdir()] == [card.name]


@pytest.mark.slow
def test_the_node_is_replaced_and_the_base_is_still_there(distilled, env):
    _, card, _, traces = distilled
    base, tuned = TinyAgent.load("nano"), TinyAgent.load(card)
    task = env.tasks("train")[0]
    before = base.invoke(task.prompt).text
    run_episodes(create_cmat_graph(tuned).compile(), env.tasks("train")[:8], env=env, traces=traces, run="tuned")
    assert {step.adapter for e in traces.episodes(run="tuned") for step in e.steps} == {card.id}
    assert sum(e.solved for e in traces.episodes(run="tuned")) >= 4
    assert base.invoke(task.prompt).text == before


@pytest.mark.slow
def test_calls_with_and_without_the_adapter_may_mix(distilled, env):
    from concurrent.futures import ThreadPoolExecutor

    _, card, _, _ = distilled
    base, tuned = TinyAgent.load("nano"), TinyAgent.load(card)
    prompts = [task.prompt for task in env.tasks()[:6]]
    alone = [[model.invoke(p).text for p in prompts] for model in (base, tuned)]
    with ThreadPoolExecutor(12) as pool:
        calls = [[pool.submit(model.invoke, p) for p in prompts] for model in (base, tuned)]
    assert [[call.result().text for call in row] for row in calls] == alone


@pytest.mark.slow
def test_an_adapter_of_another_base_is_refused(distilled):
    _, card, _, _ = distilled
    with pytest.raises(AdapterMismatchError, match="was trained on"):
        TinyAgent.load("nano", adapter=replace(card, base_hash="0" * 64))
    with pytest.raises(AdapterMismatchError, match="was trained on"):
        TinyAgent.load("nano", adapter=replace(card, base="Qwen/Qwen3-0.6B", base_hash=""))


@pytest.mark.slow
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


@pytest.mark.slow
def test_another_template_than_it_was_trained_by_is_warned_of(distilled, caplog):
    _, card, _, _ = distilled
    TinyAgent.load(card)
    assert "another chat template" not in caplog.text
    TinyAgent.load(replace(card, template_hash="0" * 64))
    assert f"{card.id} was trained with another chat template" in caplog.text


def test_going_on_from_an_adapter_of_another_template_is_warned_of(tmp_path, caplog):
    check_init(AdapterCard(name="one", node="n", base="nano"), "nano", "", TrainSettings())
    assert not caplog.text
    check_init(AdapterCard(name="one", node="n", base="nano", template_hash="0" * 64), "nano", "", TrainSettings())
    assert "n/one was trained with another chat template than nano has now; the rows are rendered" in caplog.text


@pytest.mark.slow
def test_examples_past_the_limit_are_left_out_never_cut(distilled):
    registry, _, _, traces = distilled
    with pytest.raises(EmptyHarvestError, match="8 tokens"):
        distill(traces, registry, name="none", settings=TrainSettings(max_length=8))
    assert [card.name for card in registry.list()] == [registry.get("assistant").name]


@pytest.mark.slow
def test_the_same_call_gives_the_same_name_and_another_setting_another(distilled, tmp_path):
    _, card, _, _ = distilled
    dataset = Path(card.folder, "dataset")
    again = distill(None, AdapterRegistry(tmp_path / "a"), dataset=dataset, settings=QUICK)
    assert (again.name, again.dataset_hash, again.loss) == (card.name, card.dataset_hash, card.loss)
    small = replace(QUICK, max_steps=2)
    other = distill(None, AdapterRegistry(tmp_path / "b"), dataset=dataset, settings=small, init=card)
    assert other.name != card.name
    assert other.init == card.key
    assert other.loss[0] < card.loss[0] / 2
    assert Dataset(dataset).hash == other.dataset_hash


def _die_in_training(adapters, dataset):
    def show(step, steps, loss):
        if step == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    distill(None, AdapterRegistry(adapters), dataset=dataset, progress=show, settings=QUICK)


@pytest.mark.slow
def test_killed_in_training_the_same_call_goes_on(distilled, tmp_path):
    _, card, _, _ = distilled
    dataset = Path(card.folder, "dataset")
    died = forked.run(_die_in_training, tmp_path, dataset)
    assert died.returncode == -signal.SIGKILL, died.stderr
    registry = AdapterRegistry(tmp_path)
    assert registry.list() == []
    steps = []
    done = distill(
        None, registry, dataset=dataset, settings=QUICK, progress=lambda step, total, loss: steps.append(step)
    )
    assert steps[0] == 5
    assert done.loss == pytest.approx(card.loss, abs=1e-3)
    assert not list((tmp_path / "assistant").glob(f".{done.name}-work"))


@pytest.mark.slow
def test_a_fully_finetuned_model_stands_in_for_its_base(distilled, env, tmp_path, traces):
    _, card, _, _ = distilled
    registry = AdapterRegistry(tmp_path)
    settings = TrainSettings(method="full", epochs=6, batch_size=8)
    full = distill(None, registry, dataset=Path(card.folder, "dataset"), settings=settings)
    assert full.is_full
    assert len(full.weights_hash) == 64
    model = TinyAgent.load(full)
    prompt = env.tasks("train")[0].prompt
    assert model.invoke(prompt).text != TinyAgent.load("nano").invoke(prompt).text
    run_episodes(create_cmat_graph(model).compile(), env.tasks("train")[:2], env=env, traces=traces)
    assert {step.adapter for e in traces.episodes() for step in e.steps} == {full.id}
    assert TinyAgent.load("nano", adapter=full).invoke(prompt).text == model.invoke(prompt).text
    with pytest.raises(AdapterMismatchError, match="was trained on nano, not on"):
        TinyAgent.load(full.folder, adapter=full)
    assert json.loads(Path(full.folder, "card.json").read_text())["base"] == "nano"


# -- cheap checks come first -------------------------------------------------------------------------------------


def judged(folder, *good):
    asked = [{"role": "user", "content": "2 + 2?"}]
    rows = [
        {"prompt": asked, "completion": {"role": "assistant", "content": f"{at}"}, "tools": [], "good": each}
        | {"origin": {"task_id": "1", "episodes": []}}
        for at, each in enumerate(good)
    ]
    folder.mkdir()
    (folder / "judged.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "manifest.json").write_text(json.dumps({"sha256": "0", "rows": {"judged.train": len(rows)}}))
    return folder


@pytest.mark.parametrize("good", [True, False])
def test_kto_says_that_a_kind_is_missing_before_it_loads_anything(tmp_path, good):
    one_kind = judged(tmp_path / "d", good, good)
    with pytest.raises(EmptyHarvestError, match=f"all 2 are {'good' if good else 'bad'}; record episodes of both"):
        distill(None, AdapterRegistry(tmp_path / "a"), dataset=one_kind, settings=TrainSettings(objective="kto"))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"method": "qlora"}, "take --method lora"), ({"sharding": "zero2"}, "leave --sharding out")],
)
def test_what_this_machine_cannot_do_is_said_before_anything_is_harvested(traces, tmp_path, settings, says):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigurationError, match=says):
        distill(traces, AdapterRegistry(tmp_path), settings=TrainSettings(**settings))
    assert not list(tmp_path.glob("*/"))
