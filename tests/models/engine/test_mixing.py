"""Many adapters in one batch: each row must be answered as if it were alone, by PEFT."""

from __future__ import annotations

import random

import pytest
from random_weights import Lone, make_adapter, make_base

from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine, EngineSettings

GREEDY = Sampling(max_tokens=24)
MIXED = ["sliding_attention", "sliding_attention", "full_attention"]


def _prompts(count: int, seed: int = 0) -> list[list[int]]:
    dice = random.Random(seed)
    return [[dice.randrange(4, 768) for _ in range(dice.randrange(3, 90))] for _ in range(count)]


@pytest.fixture(scope="module")
def engine(small):
    engine = Engine(str(small), settings=EngineSettings(max_rows=12))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def lone(small, adapters):
    return Lone(small, adapters)


def test_a_mixed_batch_answers_as_peft_does_alone(engine, lone, adapters):
    keys = [engine.load_adapter(card) for card in adapters]
    names = [card.name for card in adapters]
    prompts = _prompts(40)
    chosen = [random.Random(i).randrange(-1, 6) for i in range(40)]
    pending = [
        engine.submit(prompt, adapter=keys[c] if c >= 0 else "", sampling=GREEDY)
        for prompt, c in zip(prompts, chosen, strict=True)
    ]
    for prompt, c, one in zip(prompts, chosen, pending, strict=True):
        assert one.result(60).tokens == lone.generate(prompt, names[c] if c >= 0 else "")


def test_subsets_and_uneven_groups_of_adapters(engine, lone, adapters):
    keys = [engine.load_adapter(card) for card in adapters]
    for wanted in ([0, 2, 5], [5, 5, 5, 1], [3], [-1, 4, -1, 4, 0], [1, 2], [-1, -1]):
        prompts = _prompts(len(wanted), seed=sum(wanted))
        pending = [
            engine.submit(p, adapter=keys[c] if c >= 0 else "", sampling=GREEDY)
            for p, c in zip(prompts, wanted, strict=True)
        ]
        for prompt, c, one in zip(prompts, wanted, pending, strict=True):
            assert one.result(60).tokens == lone.generate(prompt, adapters[c].name if c >= 0 else "")


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("qwen3", {"head_dim": 16}),
        ("qwen2", {}),
        ("mistral", {"sliding_window": 24}),
        ("gemma3_text", {"head_dim": 16, "sliding_window": 24, "layer_types": MIXED}),
        ("smollm3", {"no_rope_layers": [1, 1, 0]}),
        ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 1024, "tie_word_embeddings": True}),
    ],
)  # fmt: skip
def test_other_families_of_models(tmp_path, kind, changed):
    base = make_base(tmp_path / kind, kind, **changed)
    engine, lone = Engine(str(base)), Lone(base)
    prompts = _prompts(6, seed=3)
    for prompt, one in zip(prompts, [engine.submit(p, sampling=GREEDY) for p in prompts], strict=True):
        assert one.result(60).tokens == lone.generate(prompt)
    engine.close()


@pytest.mark.parametrize(
    "setting",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 7}},
        {"target_modules": ["q_proj", "down_proj"]},
    ],
)
def test_lora_settings_that_change_scale_and_places(small, tmp_path, setting):
    from peft import LoraConfig

    config = LoraConfig(r=6, lora_alpha=24, task_type="CAUSAL_LM", **{"target_modules": "all-linear"} | setting)
    card = make_adapter(small, tmp_path, "own", seed=9, config=config)
    engine, lone = Engine(str(small)), Lone(small, [card])
    prompt = _prompts(1, seed=5)[0]
    key = engine.load_adapter(card)
    assert engine.submit(prompt, adapter=key, sampling=GREEDY).result(60).tokens == lone.generate(prompt, "own")
    engine.close()
