"""DoRA adapters in the engine: token by token what PEFT answers, beside plain adapters and the bare base."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from random_weights import Lone, make_adapter, make_base
from safetensors.torch import load_file, save_file

from cmat_graph.adapters import WEIGHTS
from cmat_graph.errors import AdapterMismatchError, AdapterNotFoundError
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine, EngineSettings

GREEDY = Sampling(max_tokens=12)
BIASED = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 1024, "tie_word_embeddings": True}


def _make(base: Path, root: Path, name: str, *, seed: int, rank: int = 8, **setting):
    """Make a DoRA adapter whose rows have other lengths than the base's."""
    config = LoraConfig(
        r=rank, lora_alpha=16, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM", **setting
    )
    card = make_adapter(base, root, name, seed=seed, config=config)
    file = Path(card.folder, WEIGHTS)
    torch.manual_seed(seed)
    tensors = {
        key: tensor * torch.empty_like(tensor).uniform_(0.7, 1.3) if "magnitude" in key else tensor
        for key, tensor in load_file(file).items()
    }
    save_file(tensors, file)
    return card


def _prompts(count: int, seed: int) -> list[list[int]]:
    dice = random.Random(seed)
    return [[dice.randrange(4, 768) for _ in range(dice.randrange(3, 90))] for _ in range(count)]


def test_dora_answers_as_peft_does_beside_plain_adapters_and_the_base(small, adapters, tmp_path):
    cards = [_make(small, tmp_path, "first", seed=1), _make(small, tmp_path, "second", seed=2, rank=4), adapters[1]]
    engine = Engine(str(small), settings=EngineSettings(max_rows=12))
    keys = [engine.load_adapter(card) for card in cards]
    bare = Lone(small)
    lone = {card.name: Lone(small, [card]) for card in cards}  # PEFT refuses batches that mix DoRA adapters
    for wanted in ([0, 1, 2, -1], [1, 1, 0, 2, 2], [0, 0]):
        prompts = _prompts(len(wanted), seed=sum(wanted))
        pending = [
            engine.submit(prompt, adapter=keys[c] if c >= 0 else "", sampling=GREEDY)
            for prompt, c in zip(prompts, wanted, strict=True)
        ]
        for prompt, c, one in zip(prompts, wanted, pending, strict=True):
            alone = lone[cards[c].name] if c >= 0 else bare
            assert one.result(60).tokens == alone.generate_alone(prompt, 12)
    engine.close()


@pytest.mark.parametrize(("kind", "changed"), [("qwen2", {}), ("gpt2", BIASED)])
def test_layers_with_a_bias_and_gpt2s_kind(tmp_path, kind, changed):
    base = make_base(tmp_path / kind, kind, **changed)
    _shake_biases(base)
    card = _make(base, tmp_path, "own", seed=3, use_rslora=True, fan_in_fan_out=kind == "gpt2")
    engine, lone = Engine(str(base)), Lone(base, [card])
    key = engine.load_adapter(card)
    prompts = _prompts(4, seed=4)
    pending = [engine.submit(prompt, adapter=key, sampling=GREEDY) for prompt in prompts]
    for prompt, one in zip(prompts, pending, strict=True):
        assert one.result(60).tokens == lone.generate_alone(prompt, 12)
    engine.close()


def _shake_biases(base: Path) -> None:
    file = base / "model.safetensors"
    torch.manual_seed(5)
    tensors = {
        name: torch.randn_like(tensor) if name.endswith(".bias") and "ln" not in name else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})


def test_the_gains_leave_memory_with_their_adapter(small, adapters, tmp_path):
    engine = Engine(str(small))
    engine.load_adapter(adapters[1])
    plain = engine._worker.batch.adapter_bytes
    card = _make(small, tmp_path, "first", seed=1)
    engine.load_adapter(card)
    assert engine._worker.batch.adapter_bytes > plain * 2
    engine.unload_adapter(card.id)
    assert engine._worker.batch.adapter_bytes == plain
    engine.close()


def test_lengths_that_are_missing_are_one_clear_error(small, tmp_path):
    card = _make(small, tmp_path, "first", seed=1)
    file = Path(card.folder, WEIGHTS)
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "magnitude" in name))
    save_file(tensors, file)
    engine = Engine(str(small))
    with pytest.raises(AdapterNotFoundError, match="lacks its rows' lengths"):
        engine.load_adapter(card)
    engine.close()


def test_a_row_without_length_cannot_be_set_to_one(small, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for file in small.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in tensors if "q_proj" in name)
    tensors[name][0] = 0
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    card = _make(base, tmp_path, "first", seed=1)
    file = Path(card.folder, WEIGHTS)
    weights = load_file(file)
    zero = next(key for key in weights if "lora_B" in key and name.removesuffix(".weight") in key)
    weights[zero][0] = 0
    save_file(weights, file)
    engine = Engine(str(base))
    with pytest.raises(AdapterMismatchError, match="no row of"):
        engine.load_adapter(card)
    engine.close()
