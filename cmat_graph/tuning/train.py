"""Train one LoRA adapter with TRL and PEFT. Read top to bottom: load, check lengths, train, save."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads collapse beside another busy process

try:
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, ProgressCallback, TrainerCallback
    from transformers.utils import logging as transformers_logging
    from trl import SFTConfig, SFTTrainer
except ImportError as exc:
    from cmat_graph.errors import MissingExtraError

    raise MissingExtraError.of("local", exc) from exc

from cmat_graph.errors import CmatError, EmptyHarvestError, ModelNotFoundError
from cmat_graph.rendering.marks import defused
from cmat_graph.tuning.old_dataset import SFTExample
from cmat_graph.tuning.settings import LoraSettings

PACKAGES = ("cmat-graph", "torch", "transformers", "peft", "trl", "datasets")
Progress = Callable[[int, int, float], None]
"""Called with step, number of steps, and the latest loss."""


class Trained(NamedTuple):
    """What training left behind, beside the adapter's files."""

    loss: list[float]
    examples: int
    too_long: int
    versions: dict[str, str]


class _Report(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.loss: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            loss = float(logs["loss"])
            if loss != loss:
                raise CmatError(f"the loss became NaN at step {state.global_step}; lower the learning rate")
            self.loss.append(round(loss, 4))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps, self.loss[-1] if self.loss else 0.0)


def train_lora(
    examples: Sequence[SFTExample],
    location: str,
    target: Path,
    *,
    settings: LoraSettings,
    progress: Progress | None = None,
) -> Trained:
    """Train an adapter on completions and save it into a folder.

    Args:
        examples: What to learn.
        location: The base, as `from_pretrained` takes it.
        target: Folder for `adapter_config.json` and `adapter_model.safetensors`.
        settings: How to train.
        progress: Called after each step.

    Raises:
        EmptyHarvestError: Every example is longer than the limit.

    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        tokenizer = AutoTokenizer.from_pretrained(location)
        model = AutoModelForCausalLM.from_pretrained(
            location, dtype="auto" if torch.cuda.is_available() else torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        raise ModelNotFoundError(f"cannot load base {location!r}: {str(exc).splitlines()[0]}") from exc

    limit = min(settings.max_length, getattr(model.config, "max_position_embeddings", settings.max_length))
    rows = []
    for example in examples:
        row = {name: defused(turns, tokenizer) for name, turns in example.to_row().items()}
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"]
        if len(whole) <= limit:  # TRL would cut the target off without a word
            rows.append({"prompt": row["prompt"], "completion": row["completion"]})
    if not rows:
        raise EmptyHarvestError(f"every example is longer than {limit} tokens; raise max_length or take another base")

    report = _Report(progress)
    with tempfile.TemporaryDirectory(prefix="cmat-train-") as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # PEFT 0.21 uses an old name
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            args=SFTConfig(
                output_dir=scratch,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.rate,
                lr_scheduler_type="cosine",
                warmup_steps=0.03,
                max_length=limit,
                completion_only_loss=True,
                train_sampling_strategy="group_by_length",
                pad_to_multiple_of=32,  # few shapes: oneDNN's caches grow with each
                activation_checkpointing=False,
                use_cpu=not torch.cuda.is_available(),
                bf16=torch.cuda.is_available(),
                logging_steps=5,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                seed=settings.seed,
            ),
            callbacks=[report],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
        try:
            trainer.model.save_pretrained(str(target))
        except SafetensorError as exc:  # a plain Exception, also for a full disk
            raise OSError(f"cannot write the adapter into {target}: {exc}; free some disk space") from exc
    _forget_paths(target)
    return Trained(
        loss=report.loss,
        examples=len(rows),
        too_long=len(examples) - len(rows),
        versions={name: version(name) for name in PACKAGES},
    )


def _forget_paths(folder: Path) -> None:
    """Take this machine's paths out of what PEFT wrote: an adapter folder must travel. The card names the base."""
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": None}
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)
