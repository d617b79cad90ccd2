"""Adapters come, change and go while requests run; what is damaged or foreign never reaches the model."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_weights import Lone, make_adapter, make_base
from safetensors.torch import load_file, save_file

from cmat_graph.adapters import WEIGHTS, AdapterRegistry
from cmat_graph.errors import (
    AdapterMismatchError,
    AdapterNotFoundError,
    ConfigurationError,
    EngineError,
    UnsupportedAdapterError,
)
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine, EngineSettings

GREEDY = Sampling(max_tokens=10)
PROMPT = list(range(30, 60))


@pytest.fixture
def engine(small):
    engine = Engine(str(small))
    yield engine
    engine.close()


@pytest.fixture
def card(adapters, tmp_path):
    """A copy of an adapter, to be damaged."""
    folder = tmp_path / "assistant" / adapters[0].name
    shutil.copytree(adapters[0].folder, folder)
    return replace(adapters[0], folder=str(folder))


def change(card, **tensors):
    file = Path(card.folder, WEIGHTS)
    save_file(load_file(file) | tensors, file)


def test_a_name_means_the_version_loaded_last(engine, small, adapters):
    lone = Lone(small, adapters[:2])
    old = engine.load_adapter(adapters[0], name="assistant")
    running = engine.submit(PROMPT, adapter="assistant", sampling=Sampling(max_tokens=60))
    new = engine.load_adapter(adapters[1], name="assistant")
    assert engine.submit(PROMPT, adapter="assistant", sampling=GREEDY).result(60).tokens == lone.generate(
        PROMPT, "agent-1", 10
    )
    assert running.result(60).tokens == lone.generate(PROMPT, "agent-0", 60)
    assert [(a.name, a.key) for a in engine.adapters()] == [("assistant", new)]
    # whoever holds the old key still gets the old version: it is read from disk again
    assert engine.submit(PROMPT, adapter=old, sampling=GREEDY).result(60).tokens == lone.generate(PROMPT, "agent-0", 10)


def test_no_wrong_output_while_adapters_are_swapped(engine, small, adapters):
    lone = Lone(small, adapters)
    right = {card.id: lone.generate(PROMPT, card.name, 10) for card in adapters}
    assert len({tuple(tokens) for tokens in right.values()}) == 6
    engine.load_adapter(adapters[0], name="swapped")
    wrong, stop = [], threading.Event()

    def call():
        for _ in range(40):
            tokens = engine.submit(PROMPT, adapter="swapped", sampling=GREEDY).result(60).tokens
            if tokens not in right.values():
                wrong.append(tokens)

    def swap():
        i = 0
        while not stop.is_set():
            engine.load_adapter(adapters[(i := i + 1) % 6], name="swapped")

    callers, swapper = [threading.Thread(target=call) for _ in range(6)], threading.Thread(target=swap)
    swapper.start()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    stop.set()
    swapper.join()
    assert not wrong
    assert [a.name for a in engine.adapters()] == ["swapped"]
    end = time.monotonic() + 10  # the worker lets the last but one go in a turn of its own
    while len(engine._worker.batch._mixer.keys) > 1 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(engine._worker.batch._mixer.keys) == 1


def test_adapters_over_the_budget_wait_on_disk(small, adapters):
    sizes = []
    for card in adapters:
        engine = Engine(str(small))
        engine.load_adapter(card)
        sizes.append(engine.adapters()[0].bytes)
        engine.close()
    engine, lone = Engine(str(small), settings=EngineSettings(adapter_bytes=2 * max(sizes))), Lone(small, adapters)
    keys = [engine.load_adapter(card) for card in adapters]
    assert sum(a.bytes for a in engine.adapters()) <= 2 * max(sizes)
    for _ in range(2):
        for key, card in zip(keys, adapters, strict=True):
            assert engine.submit(PROMPT, adapter=key, sampling=GREEDY).result(60).tokens == lone.generate(
                PROMPT, card.name, 10
            )
    engine.close()


def test_an_adapter_bigger_than_the_budget_is_refused(small, adapters):
    engine = Engine(str(small), settings=EngineSettings(adapter_bytes=1000))
    with pytest.raises(UnsupportedAdapterError, match="raise adapter_bytes"):
        engine.load_adapter(adapters[0])
    engine.close()


def test_unloading_takes_the_weights_out(engine, adapters):
    for card in adapters:
        engine.load_adapter(card)
    assert engine._worker.batch._mixer.bytes
    for card in adapters:
        engine.unload_adapter(card.id)
    assert (engine.adapters(), engine._worker.batch._mixer.bytes) == ([], 0)
    assert engine.submit(PROMPT, sampling=GREEDY).result(60).tokens


def test_an_adapter_for_another_base_is_refused_naming_both(engine, small, tmp_path):
    other = make_base(tmp_path / "other", hidden_size=32)
    card = make_adapter(other, tmp_path / "adapters", "foreign", seed=1)
    with pytest.raises(AdapterMismatchError, match=f"{other}.*not on {small}"):
        engine.load_adapter(card)
    forged = replace(card, base=str(small), base_hash=engine.base_hash)
    with pytest.raises(AdapterMismatchError, match="which this base does not have"):
        engine.load_adapter(forged)


@pytest.mark.parametrize("keep", [0, 5, 100, 20_000])
def test_cut_weights_are_one_clear_error(engine, card, keep):
    file = Path(card.folder, WEIGHTS)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(AdapterNotFoundError, match="cannot load adapter assistant/agent-0"):
        engine.load_adapter(card)
    assert engine.submit(PROMPT, sampling=GREEDY).result(60).tokens


def test_flipped_bytes_are_one_clear_error(engine, card):
    file = Path(card.folder, WEIGHTS)
    blob = bytearray(file.read_bytes())
    blob[8:40] = bytes(32)
    file.write_bytes(blob)
    with pytest.raises(AdapterNotFoundError, match="cannot load adapter"):
        engine.load_adapter(card)


@pytest.mark.parametrize("config", ["{broken", "[]", '{"peft_type": "NOTHING"}', ""])
def test_a_damaged_config_is_one_clear_error(engine, card, config):
    Path(card.folder, "adapter_config.json").write_text(config)
    with pytest.raises(AdapterNotFoundError, match="cannot load adapter"):
        engine.load_adapter(card)


def test_pickled_weights_are_never_loaded(engine, card, tmp_path):
    Path(card.folder, WEIGHTS).unlink()

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save(Bomb(), Path(card.folder, "adapter_model.bin"))
    with pytest.raises(UnsupportedAdapterError, match="pickle"):
        engine.load_adapter(card)
    assert not (tmp_path / "exploded").exists()


def test_a_pickled_base_is_never_loaded(small, tmp_path):
    from cmat_graph.errors import ModelNotFoundError

    shutil.copytree(small, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").rename(tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match="pickle"):
        Engine(str(tmp_path / "base"))


def test_a_rank_too_large_is_refused(small, tmp_path):
    engine = Engine(str(small), settings=EngineSettings(max_rank=16))
    card = make_adapter(small, tmp_path, "wide", seed=1, rank=32)
    with pytest.raises(UnsupportedAdapterError, match="rank 32, the engine takes 16; raise max_rank"):
        engine.load_adapter(card)
    engine.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(engine, card, value):
    name = next(iter(load_file(Path(card.folder, WEIGHTS))))
    change(card, **{name: torch.full_like(load_file(Path(card.folder, WEIGHTS))[name], value)})
    with pytest.raises(UnsupportedAdapterError, match="not finite"):
        engine.load_adapter(card)


def test_an_adapter_that_lacks_a_matrix_is_refused(engine, card):
    file = Path(card.folder, WEIGHTS)
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if ".lora_B." in name))
    save_file(tensors, file)
    with pytest.raises(AdapterNotFoundError, match="lacks its second matrix"):
        engine.load_adapter(card)


@pytest.mark.parametrize("setting", [{"modules_to_save": ["lm_head"]}, {"bias": "all"}])
def test_what_goes_beyond_plain_lora_names_the_way_out(engine, small, tmp_path, setting):
    card = make_adapter(small, tmp_path, "special", seed=1, **setting)
    with pytest.raises(UnsupportedAdapterError, match=f"{next(iter(setting))}.*merge"):
        engine.load_adapter(card)


def test_weights_changed_on_disk_are_noticed(small, adapters, card):
    size = Path(card.folder, WEIGHTS).stat().st_size
    engine = Engine(str(small), settings=EngineSettings(adapter_bytes=size + 1_000))
    key = engine.load_adapter(card)
    engine.load_adapter(adapters[3])  # takes its place in memory
    name = next(iter(load_file(Path(card.folder, WEIGHTS))))
    change(card, **{name: torch.zeros_like(load_file(Path(card.folder, WEIGHTS))[name])})
    with pytest.raises(AdapterNotFoundError, match="have changed"):
        engine.submit(PROMPT, adapter=key)
    engine.close()


def test_an_adapter_folder_can_be_moved(small, adapters, tmp_path):
    shutil.copytree(adapters[0].folder, tmp_path / "elsewhere" / "assistant" / "agent-0")
    card = AdapterRegistry(tmp_path / "elsewhere").get("agent-0")
    config = json.loads(Path(card.folder, "adapter_config.json").read_text())
    Path(card.folder, "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone"}))
    engine = Engine(str(small))
    engine.load_adapter(card)
    engine.close()


def settings_of(card, **changed):
    file = Path(card.folder, "adapter_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def test_a_key_means_the_settings_too(engine, small, card):
    before = engine.load_adapter(card)
    old = engine.submit(PROMPT, adapter=before, sampling=GREEDY).result(60).tokens
    settings_of(card, lora_alpha=64)
    after = engine.load_adapter(card)
    assert after != before
    new = engine.submit(PROMPT, adapter=after, sampling=GREEDY).result(60).tokens
    assert new == Lone(small, [card]).generate(PROMPT, "agent-0", 10) != old


@pytest.mark.parametrize(
    "changed",
    [
        {"lora_alpha": "x"},
        {"lora_alpha": None},
        {"lora_alpha": 1e39},
        {"alpha_pattern": ["q_proj"]},
        {"alpha_pattern": {"(([a-z_0-9]+)+\\.?)+!": 3}},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
    ],
)
def test_settings_that_make_no_sense_or_change_the_base_are_refused(engine, card, changed):
    settings_of(card, **changed)
    with pytest.raises((AdapterNotFoundError, UnsupportedAdapterError), match="agent-0"):
        engine.load_adapter(card)


def test_an_adapter_aimed_at_what_is_no_linear_layer_is_refused(engine, card):
    change(card, **{"base_model.model.model.norm.lora_A.weight": torch.ones(4, 64),
                    "base_model.model.model.norm.lora_B.weight": torch.ones(64, 4)})  # fmt: skip
    with pytest.raises(AdapterMismatchError, match=r"model\.norm"):
        engine.load_adapter(card)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float64])
def test_weights_of_odd_types_are_refused(engine, card, dtype):
    name = next(iter(load_file(Path(card.folder, WEIGHTS))))
    change(card, **{name: load_file(Path(card.folder, WEIGHTS))[name].to(dtype)})
    with pytest.raises(UnsupportedAdapterError, match="float32 or bfloat16"):
        engine.load_adapter(card)


def test_a_name_cannot_pass_for_a_key(engine, adapters):
    key = engine.load_adapter(adapters[0])
    with pytest.raises(ConfigurationError, match="'@'"):
        engine.load_adapter(adapters[1], name=key)


def test_a_large_rank_that_leaves_gives_its_memory_back(engine, small, adapters, tmp_path):
    engine.load_adapter(adapters[0])
    before = engine._worker.batch.adapter_bytes
    wide = make_adapter(small, tmp_path, "wide", seed=2, rank=64)
    engine.load_adapter(wide)
    assert engine._worker.batch.adapter_bytes > 4 * before
    engine.unload_adapter(wide.id)
    assert engine._worker.batch.adapter_bytes == before


def test_memory_that_runs_out_while_an_adapter_comes_leaves_the_others_right(engine, small, adapters, monkeypatch):
    from cmat_graph.models.decoding.lora import MixedLinear

    lone, key = Lone(small, adapters[:1]), engine.load_adapter(adapters[0])
    resized, calls = MixedLinear.resized, []

    def scarce(self, count, rank, *, gained):
        calls.append(count)
        if len(calls) == 9:
            raise torch.OutOfMemoryError("out of memory")
        return resized(self, count, rank, gained=gained)

    monkeypatch.setattr(MixedLinear, "resized", scarce)
    with pytest.raises(EngineError, match="no memory for adapter assistant/agent-2"):
        engine.load_adapter(adapters[2])
    assert engine.submit(PROMPT, adapter=key, sampling=GREEDY).result(60).tokens == lone.generate(PROMPT, "agent-0", 10)
    assert engine.load_adapter(adapters[2])


def test_a_retrained_adapter_in_the_same_folder_is_swapped_while_callers_wait(small, adapters, card):
    engine = Engine(str(small), settings=EngineSettings(max_rows=1, max_waiting=1))
    engine.load_adapter(card, name="assistant")
    hot = Sampling(max_tokens=200, temperature=2.0, seed=1)
    replies, errors = [], []

    def call():
        try:
            replies.append(engine.submit(PROMPT, adapter="assistant", sampling=hot).result(60))
        except Exception as exc:
            errors.append(exc)

    callers = [threading.Thread(target=call) for _ in range(5)]
    for caller in callers:
        caller.start()
    settings_of(card, lora_alpha=8)
    engine.load_adapter(card, name="assistant")
    for caller in callers:
        caller.join()
    assert (len(replies), errors) == (5, [])
    engine.close()


def test_layers_that_see_rows_and_tokens_as_one(tmp_path):
    from peft import LoraConfig

    base = make_base(tmp_path / "opt", "opt", ffn_dim=128, word_embed_proj_dim=64)
    config = LoraConfig(r=4, target_modules=["fc1", "fc2", "q_proj"], task_type="CAUSAL_LM")
    card = make_adapter(base, tmp_path / "adapters", "flat", seed=1, config=config)
    engine, lone = Engine(str(base)), Lone(base, [card])
    key = engine.load_adapter(card)
    prompts = [list(range(n, 2 * n)) for n in (10, 20, 30, 33)]
    pending = [engine.submit(p, adapter=key if i % 2 else "", sampling=GREEDY) for i, p in enumerate(prompts)]
    for i, (prompt, one) in enumerate(zip(prompts, pending, strict=True)):
        alone = lone.generate_alone(prompt, 10) if i % 2 else Lone(base).generate(prompt, tokens=10)
        assert one.result(60).tokens == alone
    engine.close()
