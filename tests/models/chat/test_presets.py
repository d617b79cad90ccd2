from __future__ import annotations

import pytest
from families import tokenizer

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.chat.presets import PRESETS, preset_of
from cmat_graph.models.chat_model import TinyAgent

LOOKS_LIKE = {
    "Qwen/Qwen3-0.6B": "qwen",
    "Qwen/Qwen3-1.7B": "qwen",
    "Qwen/Qwen3-4B": "qwen",
    "HuggingFaceTB/SmolLM3-3B": "smol",
    "meta-llama/Llama-3.2-1B-Instruct": "llama",
    "google/gemma-3-1b-it": "gemma",
    "Qwen/Qwen-1_8B-Chat": "coder",  # ChatML, and no calls that we know
    "codellama/CodeLlama-7b-Instruct-hf": "codellama",
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_template_of_the_family_passes_and_others_do_not(preset):
    preset.check(tokenizer(LOOKS_LIKE[preset.name]))
    for other in {"qwen", "llama", "gemma"} - {LOOKS_LIKE[preset.name].replace("smol", "qwen")}:
        with pytest.raises(ConfigurationError, match="without a preset"):
            preset.check(tokenizer(other))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_its_settings_are_fields_of_the_model(preset):
    assert set(preset.settings) <= set(TinyAgent.model_fields)


def test_a_preset_is_found_by_hub_id_or_folder():
    assert preset_of("Qwen/Qwen3-4B") is preset_of("/models/qwen3-4b/")
    with pytest.raises(ConfigurationError, match=r"known: Qwen/Qwen3-0\.6B"):
        preset_of("nano")


def test_a_tokenizer_without_a_template_is_refused():
    from copy import deepcopy

    bare = deepcopy(tokenizer("qwen"))
    bare.chat_template = None
    with pytest.raises(ConfigurationError, match="no chat template"):
        preset_of("Qwen/Qwen3-0.6B").check(bare)
    with pytest.raises(ConfigurationError, match="no preset for 'nano'"):
        TinyAgent.load("nano", preset=True)
