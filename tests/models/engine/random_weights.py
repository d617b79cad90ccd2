"""Bases and adapters of random weights, made as PEFT and transformers make theirs."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.bases import NANO_FOLDER, hash_base

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 768, "max_position_embeddings": 1024, "tie_word_embeddings": True,
         "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}  # fmt: skip


def make_base(folder: Path, kind: str = "llama", **changed) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | changed))
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)  # far apart: no token is nearly as likely as the best
    model.generation_config.eos_token_id = 1
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(NANO_FOLDER / name, folder)
    return folder


def make_adapter(base: Path, root: Path, name: str, *, seed: int, config=None, std: float = 0.1, **lora) -> AdapterCard:
    """Make an adapter of random weights and register it."""

    def write(folder: Path) -> AdapterCard:
        torch.manual_seed(seed)
        made = config or LoraConfig(
            r=lora.pop("rank", 8), lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **lora
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), made)
            for weight in model.parameters():
                if weight.requires_grad and weight.ndim > 1:
                    torch.nn.init.normal_(weight, std=std)
            model.save_pretrained(str(folder))
        return AdapterCard(name=name, node="assistant", base=str(base), base_hash=hash_base(str(base)))

    registry = AdapterRegistry(root)
    return registry.add(AdapterCard(name=name, node="assistant", base=str(base)), write)


class Lone:
    """The reference: transformers and PEFT, one prompt at a time."""

    def __init__(self, base: Path, cards=()) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i, card in enumerate(cards):
                if i == 0:
                    self.model = PeftModel.from_pretrained(self.model, card.folder, adapter_name=card.name)
                else:
                    self.model.load_adapter(card.folder, adapter_name=card.name)
        self.model.eval()

    @torch.inference_mode()
    def generate(self, prompt: list[int], adapter: str = "", tokens: int = 24) -> list[int]:
        """Return the greedy reply's tokens."""
        given = {"adapter_names": [adapter or "__base__"]} if hasattr(self.model, "peft_config") else {}
        out = self.model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=1, **given,
        )  # fmt: skip
        return out[0, len(prompt) :].tolist()

    @torch.inference_mode()
    def generate_alone(self, prompt: list[int], tokens: int = 24) -> list[int]:
        """Return the greedy reply's tokens without `generate`, which some of PEFT's prompt methods do not serve."""
        drawn: list[int] = []
        while len(drawn) < tokens and (not drawn or drawn[-1] != 1):
            drawn.append(
                int(self.model(input_ids=torch.tensor([prompt + drawn]), use_cache=False).logits[0, -1].argmax())
            )
        return drawn
