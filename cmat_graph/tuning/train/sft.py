"""Weighted supervised finetuning, as a trainer of TRL that computes only what the loss depends on.

loss = sum_i w_i * -log p(token_i | before) / sum_i w_i over the target tokens of the batch, over all processes and
accumulated micro-batches (formula F11, by tokens): with weights of 1 it is what TRL's own trainer minimises.

What TRL's trainer does besides is left out: its rows are prepared here (`encoding`), it scores every position with
three passes over the vocabulary for metrics, and it recomputes activations. Here the vocabulary is multiplied at
targets alone, and what rows have in common is read once (`batches`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset as Table
from trl import SFTConfig, SFTTrainer

from cmat_graph.errors import EmptyHarvestError
from cmat_graph.tuning.dataset import Dataset, Part
from cmat_graph.tuning.encoding import EncodedRow, encode, end_tokens
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train.batches import ByLength, Planner, Rows
from cmat_graph.tuning.train.loss import base_of, can_share, token_budget, weighted_nll
from cmat_graph.tuning.train.methods import longest

LOGITS = 1 << 26
"""Numbers in the logits of one chunk, about."""
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


def sft_trainer(
    model: Any,
    tokenizer: Any,
    dataset: Dataset,
    settings: TrainSettings,
    arguments: dict[str, Any],
    callbacks: Sequence[Any] = (),
) -> tuple[SFTTrainer, Counter[str]]:
    """Build the trainer of a dataset's conversations.

    Args:
        model: The base, wrapped for its method.
        tokenizer: The base's own.
        dataset: Its validation rows are evaluated on, if there are any.
        settings: How to train.
        arguments: For `SFTConfig`.
        callbacks: The trainer's.

    Returns:
        The trainer, and counts of what was encoded and left out.

    Raises:
        EmptyHarvestError: No row is short enough.

    """
    counts: Counter[str] = Counter()
    parts: dict[Part, Rows] = {}
    names: tuple[Part, ...] = ("train", "validation")
    for part in names:
        parts[part] = Rows(_encoded(model, tokenizer, dataset, settings, part, counts))
    if not len(parts["train"]):
        limit = longest(base_of(model), settings)
        raise EmptyHarvestError(
            f"there is nothing to train on: {counts['targets left out: too long']} replies are longer than {limit} "
            "tokens with their prompts; raise max_length, or take a base with a larger window"
        )
    if not len(parts["validation"]):
        arguments = arguments | {"eval_strategy": "no"}
    trainer = WeightedTrainer(model, tokenizer, parts["train"], parts["validation"], settings, arguments, callbacks)
    return trainer, counts


def _encoded(
    model: Any, tokenizer: Any, dataset: Dataset, settings: TrainSettings, part: Part, counts: Counter[str]
) -> Iterator[EncodedRow]:
    limit, ends = longest(base_of(model), settings), end_tokens(base_of(model), tokenizer)
    of = "" if part == "train" else "validation "
    for example in dataset.examples(part):
        encoded = encode(example, tokenizer, limit=limit, join=settings.join_turns, ends=ends)
        counts[f"{of}targets"] += encoded.targets
        counts[f"{of}rows"] += len(encoded.rows)
        counts[f"{of}targets left out: too long"] += encoded.too_long
        yield from encoded.rows


class WeightedTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer over rows whose tokens have weights."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        train: Rows,
        validation: Rows,
        settings: TrainSettings,
        arguments: dict[str, Any],
        callbacks: Sequence[Any] = (),
    ) -> None:
        # TRL looks at its data before training; these rows have no columns, so it is shown one of its own kind.
        shown = Table.from_dict({"input_ids": [[0, 0]], "labels": [[-100, 0]]})
        super().__init__(
            model=model,
            processing_class=tokenizer,
            train_dataset=shown,
            eval_dataset=shown if len(validation) else None,
            data_collator=Planner(pad=0, budget=1, most_targets=1, shares=False),
            args=SFTConfig(
                **arguments,
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                remove_unused_columns=False,
            ),
            callbacks=list(callbacks),
        )
        self.train_dataset = train
        self.eval_dataset = validation if len(validation) else None
        self.steps = ByLength(train.lengths, settings.batch_size, settings.seed)
        base = base_of(self.model)
        vocabulary = base.get_output_embeddings().weight.shape[0]
        sharded = self.accelerator.distributed_type in SHARDED
        self.data_collator = Planner(
            pad=tokenizer.pad_token_id or 0,
            budget=token_budget(base),
            most_targets=max(64, LOGITS // vocabulary),
            shares=can_share(self.model) and not sharded,
            whole=sharded,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> ByLength:
        return self.steps

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:
        """Return what all targets of a step weigh, over all processes, and count its tokens."""
        sums = torch.stack([sum(batch[name] for batch in batch_samples) for name in ("weight", "tokens")])
        if self.args.world_size > 1:
            sums = self.accelerator.gather(sums.to(device, torch.float32)[None]).sum(0)
        self._total_train_tokens += int(sums[1])
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return float(sums[0])

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Go forward and back through the chunks one by one, so that only one's activations are held."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        chunks = inputs["chunks"]
        for number, chunk in enumerate(chunks, 1):
            syncs = number == len(chunks) or self.accelerator.distributed_type in SHARDED
            with nullcontext() if syncs else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self._loss(model, chunk, num_items_in_batch or 1.0)
                if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
                    self.accelerator.backward(loss, scale_wrt_gas=False)
                else:
                    self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a whole batch."""
        weight = num_items_in_batch or float(inputs["weight"]) or 1.0
        loss = torch.stack([self._loss(model, chunk, weight) for chunk in inputs["chunks"]]).sum()
        return (loss, None) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Return the loss of a batch of validation rows."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        # Each process normalises by what its own rows weigh: the mean over processes is taken by the trainer.
        return loss / self.accelerator.num_processes, None, None

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: transformers would count from columns that are not there."""
        return 0

    def _loss(self, model: Any, chunk: dict[str, torch.Tensor], weight: float) -> torch.Tensor:
        chunk = {name: tensor.to(self.args.device) for name, tensor in chunk.items()}
        # DDP takes the mean of the processes' gradients; the sum of their losses is what is minimised.
        scale = float(self.accelerator.num_processes / weight)
        loss: torch.Tensor = weighted_nll(model, self.accelerator.unwrap_model(model), chunk) * scale
        return loss
