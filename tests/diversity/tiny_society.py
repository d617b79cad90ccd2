"""A tiny random Llama with random adapters, and the definitions once more, one model and one reply at a time."""

from __future__ import annotations

import math

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cmat_graph import AdapterCard, AdapterRegistry
from cmat_graph.bases import hash_base, resolve_base


def make_base(folder, seed=0):
    """Write a tiny model with nano's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_base("nano"))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(root, base, node, seed, name="first"):
    """Register a LoRA that changes something."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False))
    card = AdapterCard(name=name, node=node, base=str(base), base_hash=hash_base(str(base)))

    def write(folder):
        adapted.save_pretrained(str(folder))
        return card

    registry = AdapterRegistry(root)
    registry.add(card, write)
    return registry.get(card.id)


class Alone:
    """The definitions, with each model loaded by itself and each reply read by itself."""

    def __init__(self, base, card=None):
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if card is not None:
            self.model = PeftModel.from_pretrained(self.model, card.folder)
        self.model.eval()

    def ids(self, prompt, reply):
        text = self.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        return self.encode(text), [*self.encode(reply), self.tokenizer.eos_token_id]

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def following(self, prompt, reply):
        """Return the distribution at each token of the reply."""
        before, told = self.ids(prompt, reply)
        logits = self.model(input_ids=torch.tensor([before + told])).logits[0, len(before) - 1 : -1]
        return list(torch.softmax(logits.double(), -1)), told

    @torch.no_grad()
    def next_of(self, ids):
        """Return the distribution of what follows, with nothing behind it to look at."""
        return torch.softmax(self.model(input_ids=torch.tensor([ids])).logits[0, -1].double(), -1)

    def nll(self, prompt, reply):
        found, told = self.following(prompt, reply)
        return -sum(math.log(p[token]) for p, token in zip(found, told, strict=True)) / len(told)

    def kl(self, other, prompt, reply):
        mine, _ = self.following(prompt, reply)
        theirs, _ = other.following(prompt, reply)
        return sum(divergence(p, q) for p, q in zip(mine, theirs, strict=True)) / len(mine)


def divergence(p, q):
    return float((p * (p / q).log()).sum())
