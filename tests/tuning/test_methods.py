"""Every method by every objective: it trains, it is saved, and the engine answers with it as PEFT does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_rows import make_dataset

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.bases import NANO_FOLDER, hash_base
from cmat_graph.errors import ConfigurationError
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine
from cmat_graph.tuning.encoding import to_ids
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train import train
from cmat_graph.tuning.train.loading import load_model, load_tokenizer
from cmat_graph.tuning.train.methods import begin_with_words, wrap

NANO = str(NANO_FOLDER)
ADAPTERS = ("lora", "rslora", "dora", "p-tuning", "prefix")
PROMPT = [{"role": "user", "content": "add 2 and 3"}]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("rows") / "dataset")


def _settings(method: str, **changed) -> TrainSettings:
    return TrainSettings(method=method, rank=4, virtual_tokens=6, batch_size=8, save_steps=0, **{"epochs": 3} | changed)


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=[pytest.mark.slow] * (method == "dora")) for method in ADAPTERS]
)
def test_an_adapter_is_trained_and_the_engine_answers_with_it_as_peft_does(dataset, tmp_path, method):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def write(folder: Path) -> AdapterCard:
        done = train(dataset, NANO, folder, settings=_settings(method), work=tmp_path / "work")
        assert done.loss[-1] < done.loss[0]
        return AdapterCard(name=method, node="assistant", base="nano", base_hash=hash_base(NANO))

    card = AdapterRegistry(tmp_path).add(AdapterCard(name=method, node="assistant", base="nano"), write)
    engine = Engine("nano")
    prompt = engine.encode(PROMPT)
    told = engine.submit(prompt, adapter=engine.load_adapter(card), sampling=Sampling(max_tokens=8)).result(60).tokens
    engine.close()
    lone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32), card.folder)
    lone.eval()
    expected: list[int] = []
    while len(expected) < len(told):
        with torch.inference_mode():
            out = lone(input_ids=torch.tensor([prompt + expected]), use_cache=False)
        expected.append(int(out.logits[0, -1].argmax()))
    assert told == expected


def test_full_finetuning_writes_a_whole_model(dataset, tmp_path):
    done = train(dataset, NANO, tmp_path / "model", settings=_settings("full"), work=tmp_path / "work")
    assert done.loss[-1] < done.loss[0]
    assert hash_base(str(tmp_path / "model")) not in ("", hash_base(NANO))
    engine = Engine(str(tmp_path / "model"))
    assert engine.submit(engine.encode(PROMPT), sampling=Sampling(max_tokens=8)).result(60).tokens
    engine.close()
    assert NANO not in (tmp_path / "model" / "config.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "kto"])
@pytest.mark.parametrize("method", [*ADAPTERS, "full"])
def test_preferences_are_learned_by_every_method(dataset, tmp_path, method, objective):
    settings = _settings(method, objective=objective, epochs=6)
    done = train(dataset, NANO, tmp_path / "out", settings=settings, work=tmp_path / "work")
    assert sum(done.loss[-3:]) < sum(done.loss[:3])


def test_a_prefix_of_real_tokens_changes_the_base_less_than_a_drawn_one():
    settings = _settings("prefix")
    tokenizer = load_tokenizer(NANO)
    model = wrap(load_model(NANO, settings), settings)
    text = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([to_ids(tokenizer, text)])

    def distance() -> float:
        """How far the next tokens' chances are from the base's (Kullback-Leibler)."""
        with torch.no_grad():
            ours = model(input_ids=ids).logits.log_softmax(-1)
            with model.disable_adapter():
                base = model(input_ids=ids).logits.log_softmax(-1)
        return float((base.exp() * (base - ours)).sum(-1).mean())

    drawn = distance()
    begin_with_words(model, ids[0].tolist())
    assert distance() < 0.7 * drawn


def test_p_tunings_network_survives_a_checkpoint(dataset, tmp_path):
    """PEFT's own checkpoint holds the vectors that it makes, and not the network; a resumed run would begin it anew."""
    settings = TrainSettings(method="p-tuning", virtual_tokens=6, batch_size=8, save_steps=1, epochs=2)
    train(dataset, NANO, tmp_path / "out", settings=settings, work=tmp_path / "work")
    run = next((tmp_path / "work").iterdir())
    kept = load_file(run / "checkpoint-4" / "trained.safetensors")
    assert any("mlp_head" in name for name in kept)
    (run / "checkpoint-4" / "complete").unlink()
    again = train(dataset, NANO, tmp_path / "again", settings=settings, work=tmp_path / "work")
    assert again.resumed_from == 3
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("out", "again"))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_going_on_with_another_method_is_refused(dataset, tmp_path):
    train(dataset, NANO, tmp_path / "out", settings=_settings("lora", max_steps=1), work=tmp_path / "work")
    for method in ("dora", "prefix"):
        with pytest.raises(ConfigurationError, match=f"not of method {method}"):
            train(dataset, NANO, tmp_path / "b", settings=_settings(method), work=tmp_path / "w", init=tmp_path / "out")
