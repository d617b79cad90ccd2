"""Adapters that leave the registry: merged into their base, as a GGUF file, as a line for vLLM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("peft")
import small_adapters
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cmat_graph import AdapterCard, AdapterRegistry
from cmat_graph.bases import NANO_FOLDER, hash_base
from cmat_graph.errors import (
    AdapterMismatchError,
    AdapterNotFoundError,
    ConfigurationError,
    ModelNotFoundError,
    UnsupportedAdapterError,
)
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.tuning.exporting import export_gguf, find_converter, vllm_line
from cmat_graph.tuning.merging import merge

QUESTION = "How many rows have the city 'Oslo'?"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registry = AdapterRegistry(tmp_path_factory.mktemp("adapters"))
    small_adapters.register(registry)
    torch.manual_seed(1)
    for name, more in (("wide", {"r": 12, "use_rslora": True}), ("dora", {"r": 3, "use_dora": True})):
        model = AutoModelForCausalLM.from_pretrained(NANO_FOLDER, dtype=torch.float32)
        adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", lora_alpha=4, **more))
        for each, weights in adapted.named_parameters():
            if "lora_B" in each:
                torch.nn.init.normal_(weights, std=0.02)
        method = "dora" if name == "dora" else "rslora"
        card = AdapterCard(name=name, node="checker", base="nano", base_hash=hash_base(str(NANO_FOLDER)), method=method)

        def write(folder, adapted=adapted, card=card):
            adapted.save_pretrained(str(folder))
            return card

        registry.add(card, write)
    return registry


@pytest.mark.parametrize("name", ["same", "wide", "dora"])
def test_a_merged_folder_computes_what_the_adapter_did(registry, tmp_path, name):
    from peft import PeftModel

    card = registry.get(name)
    folder = merge(card, tmp_path / "merged", dtype="float32")
    base = AutoModelForCausalLM.from_pretrained(NANO_FOLDER, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, card.folder)
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=2e-4)
    assert [each.name for each in tmp_path.iterdir()] == ["merged"]


def test_a_merged_folder_is_a_base_like_any_other(registry, tmp_path):
    folder = merge(registry.get("silent"), tmp_path / "merged")
    assert TinyAgent.load("nano").invoke(QUESTION).text
    assert TinyAgent.load(folder).invoke(QUESTION).text == TinyAgent.load(registry.get("silent")).invoke(QUESTION).text
    assert str(registry.root) not in "".join(file.read_text() for file in folder.glob("*.json"))


def test_what_cannot_be_merged_says_why(registry, tmp_path):
    card = registry.get("same")
    with pytest.raises(UnsupportedAdapterError, match="p-tuning, which changes no weight"):
        merge(replace(card, method="p-tuning"), tmp_path / "merged")
    with pytest.raises(AdapterMismatchError, match="was trained on nano"):
        merge(replace(card, base_hash="0" * 64), tmp_path / "merged")
    with pytest.raises(AdapterNotFoundError, match="restore its files"):
        merge(replace(card, folder=str(tmp_path)), tmp_path / "merged")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is there already"):
        merge(card, tmp_path / "there")
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def test_vllm_is_told_the_ranks_and_the_names(registry):
    same, wide = registry.get("same"), registry.get("wide")
    line = vllm_line([same, wide], base="org/nano")
    assert line.startswith("vllm serve org/nano --enable-lora --max-loras 2 --max-lora-rank 16 --lora-modules ")
    assert line.endswith(f"assistant={same.folder} checker={wide.folder}")
    both = vllm_line([same, registry.get("silent")])
    assert f"assistant/same={same.folder}" in both
    assert f"vllm serve {NANO_FOLDER}" in both
    with pytest.raises(UnsupportedAdapterError, match=r"dora.*merge it and serve the folder"):
        vllm_line([registry.get("dora")])
    with pytest.raises(UnsupportedAdapterError, match=r"prefix .*cmat-graph serve"):
        vllm_line([replace(same, method="prefix")])
    with pytest.raises(ModelNotFoundError, match=r"the base of assistant/same is not found.*--base"):
        vllm_line([replace(same, base="gone")])
    with pytest.raises(ConfigurationError, match="several bases"):
        vllm_line([same, replace(wide, base_hash="0" * 64)])


CONVERTER = """\
import argparse, pathlib, sys
told = argparse.ArgumentParser()
told.add_argument("model"); told.add_argument("--outfile"); told.add_argument("--outtype")
told = told.parse_args()
if told.outtype == "q9": sys.exit("Error: unknown outtype")
size = (pathlib.Path(told.model) / "model.safetensors").stat().st_size
pathlib.Path(told.outfile).write_bytes(b"GGUF" + str(size).encode())
"""


def test_llama_cpps_own_converter_writes_the_gguf_file(registry, tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    card = registry.get("same")
    with pytest.raises(ConfigurationError, match=r"no convert_hf_to_gguf\.py on the PATH or in \$LLAMA_CPP; get llama"):
        export_gguf(card, tmp_path / "out.gguf")
    with pytest.raises(ConfigurationError, match="at nowhere"):
        find_converter("nowhere")
    home = tmp_path / "llama.cpp"
    home.mkdir()
    (home / "convert_hf_to_gguf.py").write_text(CONVERTER)
    monkeypatch.setenv("LLAMA_CPP", str(home))
    file = export_gguf(card, tmp_path / "out" / "nano.gguf")
    assert file.read_bytes().startswith(b"GGUF")
    with pytest.raises(ConfigurationError, match="could not convert assistant/same: Error: unknown outtype"):
        export_gguf(card, tmp_path / "out" / "other.gguf", outtype="q9", converter=home)
    assert [each.name for each in Path(tmp_path, "out").iterdir()] == ["nano.gguf"]
