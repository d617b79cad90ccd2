"""Two adapters of the bundled model, made without training: `same` changes nothing, `silent` never says a word."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from cmat_graph import AdapterCard
from cmat_graph.bases import hash_base, resolve_base

LOCATION = resolve_base("nano")


def register(registry, node="assistant"):
    """Register both."""
    for name in ("same", "silent"):
        model = AutoModelForCausalLM.from_pretrained(LOCATION, dtype=torch.float32)
        end = AutoTokenizer.from_pretrained(LOCATION).eos_token_id
        adapted = get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules="all-linear"))
        if name == "silent":
            _silence(adapted, end)
        card = AdapterCard(name=name, node=node, base="nano", base_hash=hash_base(LOCATION))

        def write(folder, adapted=adapted, card=card):
            adapted.save_pretrained(str(folder))
            return card

        registry.add(card, write)


@torch.no_grad()
def _silence(adapted, end):
    """Let the last layer add the direction that means the end, whatever it reads.

    Two hidden units read the same projection p of the input with both signs: silu(p) p + silu(-p) (-p) is never
    negative, so what they add always points the same way.
    """
    model = adapted.base_model.model.model
    weights = adapted.base_model.model.get_output_embeddings().weight
    wanted = torch.zeros(weights.shape[0])
    wanted[end] = 1.0
    direction = torch.linalg.lstsq(weights, wanted).solution / model.norm.weight
    torch.manual_seed(0)
    last = model.layers[-1].mlp
    for layer, scale in ((last.gate_proj, 30.0), (last.up_proj, 30.0)):
        layer.lora_A["default"].weight.normal_(std=scale)
        layer.lora_B["default"].weight.zero_()
        layer.lora_B["default"].weight[0], layer.lora_B["default"].weight[1] = 1.0, -1.0
    last.up_proj.lora_A["default"].weight.copy_(last.gate_proj.lora_A["default"].weight)
    last.down_proj.lora_A["default"].weight.zero_()
    last.down_proj.lora_A["default"].weight[0, :2] = 1.0
    last.down_proj.lora_B["default"].weight.copy_((direction / direction.norm() * 100)[:, None])
