"""Bases that are known to serve well: what their chat template must look like, and what their makers recommend.

A preset is asked for, never assumed: `TinyAgent.load("Qwen/Qwen3-0.6B", preset=True)`. Without one a base answers
greedily, as every other does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cmat_graph.errors import ConfigurationError
from cmat_graph.rendering.template import render_sample, study

CHATML = (r"<|im_start|>user", r"<|im_end|>", r"<|im_start|>assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One base."""

    name: str
    """Its hub id."""
    format: str
    """The `ChatFormat` by which it calls tools."""
    marks: tuple[str, ...]
    """What a rendered conversation must hold, in this order."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TinyAgent` as its makers recommend them."""

    def check(self, tokenizer: Any) -> None:
        """Render a sample conversation, and see that it looks as the model was trained.

        Raises:
            ConfigurationError: It does not; the message tells the first difference.

        """
        rendered = render_sample(tokenizer)
        if rendered is None:
            raise ConfigurationError(f"the tokenizer has no chat template for {self.name}; set its own: {self._fix}")
        at = 0
        for mark in self.marks:
            at = rendered.find(mark, at)
            if at < 0:
                raise ConfigurationError(f"{mark!r} is missing in {rendered!r}, which is not {self.name}; {self._fix}")
        found = study(tokenizer).format.name
        if found != self.format:
            raise ConfigurationError(
                f"tools are called as in {found!r}, but {self.name} does as in {self.format!r}; {self._fix}"
            )

    def apply(self, tokenizer: Any) -> dict[str, Any]:
        """Check the tokenizer; return the recommended settings."""
        self.check(tokenizer)
        return dict(self.settings)

    @property
    def _fix(self) -> str:
        return "take tokenizer and chat template from the model's own repository, or load without a preset"


def _qwen3(size: str) -> Preset:
    settings = {"thinking": False, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    return Preset(name=f"Qwen/Qwen3-{size}", format="hermes", marks=CHATML, settings=settings)


PRESETS = (
    _qwen3("0.6B"),
    _qwen3("1.7B"),
    _qwen3("4B"),
    Preset(
        name="HuggingFaceTB/SmolLM3-3B",
        format="hermes",
        marks=CHATML,
        settings={"thinking": False, "temperature": 0.6, "top_p": 0.95},
    ),
    Preset(
        name="meta-llama/Llama-3.2-1B-Instruct",
        format="llama3",
        marks=(
            "<|start_header_id|>user<|end_header_id|>",
            "<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>",
        ),
        settings={"temperature": 0.6, "top_p": 0.9},
    ),
    Preset(
        name="google/gemma-3-1b-it",
        format="own",
        marks=("<start_of_turn>user", "<end_of_turn>", "<start_of_turn>model"),
        settings={"temperature": 1.0, "top_p": 0.95, "top_k": 64},
    ),
    Preset(name="Qwen/Qwen-1_8B-Chat", format="own", marks=CHATML, settings={"temperature": 1.0, "top_p": 0.8}),
    Preset(
        name="codellama/CodeLlama-7b-Instruct-hf",
        format="own",
        marks=("[INST]", "[/INST]"),
        settings={"temperature": 0.2, "top_p": 0.95},
    ),
)
"""Where the settings come from (of the files below only Qwen3's figures could be looked up when this was written, for
want of a hub; compare the others with the model's own files):

Qwen3: its model card, "Best Practices", for replies without thinking, since a node's reply is short; with thinking it
    recommends `thinking=True, temperature=0.6, top_p=0.95, top_k=20`, and advises against greedy decoding.
SmolLM3: its model card. Llama 3.2, Gemma 3, Qwen 1.8B chat: `generation_config.json` of their repositories.
CodeLlama: `example_instructions.py` of Meta's repository.

Qwen-1.8B-chat, one of the paper's, comes with code and a tokenizer of its own, and without a chat template: convert it
to `Qwen2ForCausalLM` with a fast tokenizer and a ChatML template first.
"""


def preset_of(base: str) -> Preset:
    """Return the preset of a base, by its hub id or by the last part of it, as a folder may be called.

    Raises:
        ConfigurationError: There is none.

    Example:
        >>> preset_of("models/Qwen3-0.6B").name
        'Qwen/Qwen3-0.6B'

    """
    wanted = re.split(r"[/\\]", base.rstrip("/\\"))[-1].lower()
    for preset in PRESETS:
        if preset.name.rsplit("/", 1)[-1].lower() == wanted:
            return preset
    known = ", ".join(preset.name for preset in PRESETS)
    raise ConfigurationError(f"no preset for {base!r}; known: {known}. Load it without one and give settings yourself")
