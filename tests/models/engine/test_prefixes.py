"""Prompts that begin alike are read once; adapters that stand before every prompt; neither changes a reply."""

from __future__ import annotations

import random

import pytest
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from random_weights import Lone, make_adapter

from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine, EngineSettings

GREEDY = Sampling(max_tokens=16)


def words(count: int, seed: int) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(4, 768) for _ in range(count)]


@pytest.fixture
def engine(small):
    engine = Engine(str(small))
    yield engine
    engine.close()


def test_the_steps_of_an_episode_share_its_history(engine, small):
    lone, history, cached = Lone(small), words(100, 0), []
    for step in range(4):
        reply = engine.submit(history, sampling=GREEDY).result(60)
        assert reply.tokens == lone.generate(history, tokens=16)
        cached.append((reply.cached_tokens, reply.input_tokens))
        history = history + reply.tokens + words(20, step)
    # of each step's prompt all is known but what came after the last token that was computed
    assert cached == [(0, 100), (115, 136), (151, 172), (187, 208)]


def test_agents_that_ask_at_once_share_their_question(engine, small):
    lone, question = Lone(small), words(200, 1)
    prompts = [question + words(9, seed) for seed in range(5)]
    pending = [engine.submit(prompt, sampling=GREEDY) for prompt in prompts]
    replies = [one.result(60) for one in pending]
    assert [reply.tokens for reply in replies] == [lone.generate(prompt, tokens=16) for prompt in prompts]
    assert sorted(reply.cached_tokens for reply in replies) == [0, 200, 200, 200, 200]


def test_adapters_do_not_share_what_they_see_differently(engine, adapters):
    prompt = words(120, 2)
    keys = [engine.load_adapter(card) for card in adapters[:2]]
    first = engine.submit(prompt, adapter=keys[0], sampling=GREEDY).result(60)
    other = engine.submit(prompt, adapter=keys[1], sampling=GREEDY).result(60)
    again = engine.submit(prompt, adapter=keys[0], sampling=GREEDY).result(60)
    assert (other.cached_tokens, again.cached_tokens) == (0, 119)
    assert again.tokens == first.tokens != other.tokens


def test_memory_for_prefixes_is_bounded(small):
    engine = Engine(str(small), settings=EngineSettings(prefix_bytes=400_000))
    for seed in range(8):
        engine.submit(words(150, seed), sampling=GREEDY).result(60)
    kept = engine._worker.batch._prefixes
    assert 0 < kept.bytes <= 400_000
    assert engine.submit(words(150, 7), sampling=GREEDY).result(60).cached_tokens == 149
    assert engine.submit(words(150, 0), sampling=GREEDY).result(60).cached_tokens == 0
    engine.close()


def test_a_long_prompt_is_read_in_pieces_beside_others(small):
    engine, lone = Engine(str(small)), Lone(small)
    engine._worker.batch.piece = 64
    prompts = [words(n, n) for n in (300, 5, 64, 65, 129, 40)]
    pending = [engine.submit(prompt, sampling=GREEDY) for prompt in prompts]
    for prompt, one in zip(prompts, pending, strict=True):
        assert one.result(60).tokens == lone.generate(prompt, tokens=16)
    engine.close()


@pytest.mark.parametrize(
    "config",
    [
        PromptEncoderConfig(num_virtual_tokens=7, encoder_hidden_size=32, task_type="CAUSAL_LM"),
        PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
        PrefixTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM"),
    ],
    ids=["p-tuning", "prompt tuning", "prefix tuning"],
)
def test_virtual_tokens_mix_with_other_adapters(small, adapters, tmp_path, config):
    card = make_adapter(small, tmp_path, "virtual", seed=4, config=config, std=0.5)
    engine, lone, base = Engine(str(small)), Lone(small, [card]), Lone(small)
    key, lora = engine.load_adapter(card), engine.load_adapter(adapters[0])
    prompts = [words(n, n) for n in (50, 90, 12, 50)]
    pending = [engine.submit(p, adapter=key, sampling=GREEDY) for p in prompts]
    others = [engine.submit(p, adapter=lora if i % 2 else "", sampling=GREEDY) for i, p in enumerate(prompts)]
    for prompt, one in zip(prompts, pending, strict=True):
        assert one.result(60).tokens == lone.generate_alone(prompt, tokens=16) != base.generate(prompt, tokens=16)
    assert others[0].result(60).tokens == base.generate(prompts[0], tokens=16)
    again = engine.submit(prompts[1], adapter=key, sampling=GREEDY).result(60)
    assert (again.tokens, again.cached_tokens) == (pending[1].result().tokens, 89)
    engine.close()
