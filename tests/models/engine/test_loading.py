"""Bases as they lie on disk: in which numbers they are held, and which are refused."""

from __future__ import annotations

import pytest
import torch
from random_weights import make_adapter, make_base

from cmat_graph.errors import ConfigurationError, ModelNotFoundError
from cmat_graph.models.decoding import loading
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine

PROMPT = list(range(20, 60))


def test_half_precision_answers_too_and_mixes_adapters(small, adapters):
    engine = Engine(str(small), dtype="bfloat16")
    key = engine.load_adapter(adapters[0])
    pending = [engine.submit(PROMPT, adapter=a, sampling=Sampling(max_tokens=8)) for a in ("", key, "", key)]
    replies = [one.result(60).tokens for one in pending]
    assert replies[0] == replies[2] != replies[1] == replies[3]
    assert engine._worker.batch._model.dtype == torch.bfloat16
    engine.close()


@pytest.mark.parametrize("fast", [True, False])
def test_a_cpu_without_instructions_for_bfloat16_computes_in_float32(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert loading._dtype(None, on_cpu=True) == (torch.bfloat16 if fast else torch.float32)
    assert loading._dtype(None, on_cpu=False) == "auto"


def test_a_small_model_is_float32_on_every_cpu(small, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert loading.load_base(str(small), dtype=None, device="cpu", quantize=None).model.dtype == torch.float32
    assert loading.load_base(str(small), dtype="bfloat16", device="cpu", quantize=None).model.dtype == torch.bfloat16
    monkeypatch.setattr(loading, "is_small", lambda location: False)
    assert loading.load_base(str(small), dtype=None, device="cpu", quantize=None).model.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["float3", "int8", "nn", ""])
def test_what_is_no_dtype_is_refused(small, name):
    with pytest.raises(ConfigurationError, match="take float32, bfloat16 or float16"):
        Engine(str(small), dtype=name)


def test_quantised_bases_need_a_gpu_and_bitsandbytes(small, monkeypatch):
    with pytest.raises(ConfigurationError, match="needs a GPU"):
        Engine(str(small), quantize="int8")
    with pytest.raises(ConfigurationError, match="take one of int8, 4bit"):
        Engine(str(small), quantize="3bit")
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install bitsandbytes"):
        loading._quantization("4bit", on_cpu=False)


def test_a_base_without_a_chat_template_is_refused(tmp_path):
    base = make_base(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(ModelNotFoundError, match="no chat template"):
        Engine(str(base))


def test_a_base_whose_vocabulary_is_padded(tmp_path):
    from cmat_graph.models.chat_model import TinyAgent

    base = make_base(tmp_path / "base", vocab_size=800)
    model = TinyAgent(engine=Engine(str(base)))
    assert model.invoke("Yes or no?", choices=["yes", "no"]).text in ("yes", "no")
    model.engine.close()


def test_adapters_for_layers_of_gpt2s_kind(tmp_path):
    from peft import LoraConfig
    from random_weights import Lone

    base = make_base(tmp_path / "gpt2", "gpt2", n_embd=64, n_layer=2, n_head=4, n_positions=256)
    config = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    card = make_adapter(base, tmp_path / "adapters", "old", seed=1, config=config)
    engine, lone = Engine(str(base)), Lone(base, [card])
    key = engine.load_adapter(card)
    reply = engine.submit(PROMPT, adapter=key, sampling=Sampling(max_tokens=12)).result(60)
    assert reply.tokens == lone.generate(PROMPT, "old", 12) != lone.generate(PROMPT, "", 12)
    engine.close()


@pytest.mark.parametrize("kind", ["bloom", "rwkv", "mamba"])
def test_models_that_rows_of_several_lengths_cannot_share_are_refused(tmp_path, kind):
    base = make_base(tmp_path / kind, kind, n_layer=2)
    with pytest.raises(ModelNotFoundError, match=f"{kind}.*vLLM"):
        Engine(str(base))


def test_positions_that_stretch_with_the_length_are_answered_one_by_one(tmp_path):
    from random_weights import Lone

    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    base = make_base(tmp_path / "stretch", rope_parameters=rope, max_position_embeddings=64)
    engine, lone = Engine(str(base)), Lone(base)
    prompts = [list(range(n, 2 * n)) for n in (8, 20, 30)]
    pending = [engine.submit(prompt, sampling=Sampling(max_tokens=20)) for prompt in prompts]
    for prompt, one in zip(prompts, pending, strict=True):
        assert one.result(60).tokens == lone.generate(prompt, tokens=20)
    engine.close()
