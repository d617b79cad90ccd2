"""LoRA finetuning of larger random shapes: tokens a second, the share of the device's multiplications, peak memory."""

from __future__ import annotations

import gc
import random
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cmat_graph.bases import NANO_FOLDER
from cmat_graph.tuning.encoding import EncodedRow
from cmat_graph.tuning.settings import TrainSettings

from ._shared import figure, say

SHAPES = {
    "0.6b": {"hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072, "num_attention_heads": 16,
             "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True},
    "1.8b": {"hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 5504, "num_attention_heads": 16,
             "num_key_value_heads": 16, "vocab_size": 151_936, "tie_word_embeddings": False},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008, "num_attention_heads": 32,
           "num_key_value_heads": 32, "vocab_size": 32_016, "tie_word_embeddings": False},
}  # fmt: skip
"""Qwen3-0.6B, Qwen-1.8B and CodeLlama-7B."""
BATCH, LENGTH, TARGETS, STEPS, WARM = 16, 1024, 256, 8, 2


def on_gpu(
    shapes: dict[str, dict[str, Any]] = SHAPES, device: str = "cuda", *, length: int = LENGTH, batch: int = BATCH
) -> Iterator[dict[str, Any]]:
    """Yield the model FLOP utilisation of rows that share nothing, and tokens a second of those that begin alike.

    Useful multiplications of LoRA on frozen weights: 2 a weight and token forward and 2 back to the inputs, no
    gradients of the weights; of the head at targets alone; attention's own are counted by their causal half.
    """
    if device == "cuda" and not torch.cuda.is_available():
        say("no GPU here: the training figures of the 0.6B, 1.8B and 7B shapes are left out")
        return
    peak = _peak_flops(device)
    for name, shape in shapes.items():
        say(f"LoRA on a random {name}; the device multiplies {peak / 1e12:.1f} TFLOP/s in bfloat16")
        detail: dict[str, Any] = {}
        for kind, common in (("apart", 0), ("alike", length // 2)):
            seconds, memory = _train(shape, device, _rows(batch * (STEPS + WARM), length, common), batch)
            detail[kind] = {
                "tokens_per_s": round(batch * length / seconds, 1),
                "peak_memory_gib": round(memory / (1 << 30), 2),
            }
            if kind == "apart":
                share = _flops(shape, batch, length) / seconds / peak
        detail |= {"device": torch.cuda.get_device_name() if device == "cuda" else device, "batch": batch,
                   "tokens_a_row": length, "targets_a_row": length // 4,
                   "measured_tflops": round(peak / 1e12, 2)}  # fmt: skip
        yield figure(f"gpu_{name}_train_mfu", share, ">=", 0.4, detail)


def _train(shape: dict[str, Any], device: str, rows: list[EncodedRow], batch: int) -> tuple[float, int]:
    """Return the median seconds of a step after the first ones, and the peak of the device's memory."""
    from transformers import PrinterCallback, TrainerCallback

    from cmat_graph.tuning.train.batches import Rows
    from cmat_graph.tuning.train.sft import WeightedTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

    torch.manual_seed(0)
    config = LlamaConfig(**{"max_position_embeddings": 4096} | shape)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="cmat-bench-") as scratch:
        warnings.simplefilter("ignore")
        arguments = {
            "output_dir": str(Path(scratch)), "max_steps": STEPS + WARM, "per_device_train_batch_size": batch,
            "bf16": True, "use_cpu": device != "cuda", "activation_checkpointing": False, "save_strategy": "no",
            "report_to": "none", "disable_tqdm": True, "logging_steps": 1000,
        }  # fmt: skip
        clock = Clock()
        trainer = WeightedTrainer(
            get_peft_model(model, lora), AutoTokenizer.from_pretrained(NANO_FOLDER), Rows(rows), Rows([]),
            TrainSettings(batch_size=batch), arguments, [clock],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    del trainer, model
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return (clock.times[-1] - clock.times[WARM - 1]) / STEPS, memory


def _rows(count: int, length: int, common: int) -> list[EncodedRow]:
    """Rows of random tokens whose last quarter is learned, and whose first tokens are alike or not."""
    dice = random.Random(0)
    head = [dice.randrange(500) for _ in range(common)]
    weights = [0.0] * (length - length // 4) + [1.0] * (length // 4)
    return [
        EncodedRow(ids=head + [dice.randrange(500) for _ in range(length - common)], weights=weights)
        for _ in range(count)
    ]


def _flops(shape: dict[str, Any], batch: int, length: int) -> float:
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    head = shape.get("head_dim") or hidden // shape["num_attention_heads"]
    queries, keys = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    weights = layers * (2 * hidden * queries + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"])
    linear = 4 * weights * length + 4 * hidden * shape["vocab_size"] * (length // 4)
    attention = 6 * layers * queries * length * length  # 2 products forward and 4 back, half of each
    return float(batch * (linear + attention))


def _peak_flops(device: str) -> float:
    """Return the multiplications and additions a second of a large product, as the best that the device can."""
    size = 8192 if device == "cuda" else 256
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(10):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        one @ one
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
