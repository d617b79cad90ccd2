"""Learn from preferences: DPO on pairs, KTO on judged replies, by TRL's trainers on prompts as they are served.

TRL would render the conversations by itself, without what `arrange` does for templates that drop tools or refuse roles,
and cut what is too long. So rows come to it as tokens, encoded as those of supervised training are.

DPO: Rafailov et al. 2023. KTO: Ethayarajh et al. 2024, eq. 7; its reference point is estimated on replies that belong
to other prompts.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from datasets import Dataset as Table
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from cmat_graph.errors import ConfigurationError, EmptyHarvestError
from cmat_graph.tuning.dataset import Dataset, Judged, Pair, Part
from cmat_graph.tuning.encoding import Turn, encode_turn, end_tokens
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train.arguments import MULTIPLE
from cmat_graph.tuning.train.methods import adapter_config, longest, wrap

TOO_LONG = "rows left out: too long"
EQUAL = "rows left out: both replies read the same"
Encode = Callable[..., Turn]
Encoded = dict[str, Any]
T = TypeVar("T")


class Steps(torch.utils.data.Sampler[int]):
    """The rows of an epoch, step by step, in an order that depends on the seed and the epoch alone.

    So any number of processes, and a training that goes on after it was killed, see the same steps. The last one is
    filled up with the epoch's first rows, since processes need equally many.

    Args:
        count: Rows.
        batch_size: Rows of one step, over all processes.
        seed: Of the order.
        keep: Whether the rows of a step stay together, and only the steps are shuffled.

    """

    def __init__(self, count: int, batch_size: int, seed: int, *, keep: bool) -> None:
        self.count, self.batch_size, self.seed, self.keep, self.epoch = count, batch_size, seed, keep, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        dice = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(self.count)) if self.keep else dice.sample(range(self.count), self.count)
        order += [order[at % self.count] for at in range(len(self) - self.count)]
        steps = list(_batches(order, self.batch_size))
        for step in dice.sample(steps, len(steps)):
            yield from step


class _Encoded:
    """Keeps TRL's trainers from rendering, tokenising and cutting rows that are tokens already."""

    steps: Steps

    def _prepare_dataset(self, dataset: Table, *args: Any, **kwargs: Any) -> Table:
        return dataset

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Steps:
        return self.steps


class PairTrainer(_Encoded, DPOTrainer):  # type: ignore[misc]
    """TRL's DPO on encoded pairs."""


class JudgedTrainer(_Encoded, KTOTrainer):  # type: ignore[misc]
    """TRL's KTO on encoded judged replies."""


def preference_trainer(
    model: Any,
    tokenizer: Any,
    dataset: Dataset,
    settings: TrainSettings,
    arguments: dict[str, Any],
    callbacks: Sequence[Any],
    init: Path | None = None,
) -> tuple[Any, Counter[str]]:
    """Build the trainer of a preference objective.

    What is trained stays close to what it begins from: the base, or the adapter to go on from, of which TRL keeps a
    copy.

    Args:
        model: The bare base.
        tokenizer: Its own.
        dataset: With pairs for `dpo`, judged replies for `kto`.
        settings: How to train.
        arguments: Of `to_arguments`.
        callbacks: For the trainer.
        init: An adapter to go on from.

    Returns:
        The trainer, and how many rows were left out, by reason.

    Raises:
        EmptyHarvestError: There are no rows, all are too long, or all judged replies are of one kind.
        ConfigurationError: Too few rows at a time to estimate KTO's reference point.

    """
    counts: Counter[str] = Counter()
    limit = longest(model, settings)
    one = partial(encode_turn, tokenizer=tokenizer, ends=end_tokens(model, tokenizer))
    read = _pairs if settings.objective == "dpo" else _judged
    parts: dict[Part, list[Encoded]] = {}
    for part in ("train", "validation"):
        parts[part] = list(read(dataset, part, one, limit, counts))
    if not parts["train"]:
        told = "; ".join(f"{reason}: {count}" for reason, count in counts.items()) or "the dataset holds none"
        raise EmptyHarvestError(
            f"nothing to train {settings.objective} on ({told}; the limit is {limit} tokens): record episodes in which "
            "actions failed or were sent back, or raise max_length"
        )
    extra: dict[str, Any] = {"beta": settings.beta, "max_length": None, "pad_to_multiple_of": MULTIPLE}
    if settings.objective == "kto":
        extra |= _balance(parts["train"]) | {"train_sampling_strategy": "sequential"}
        if arguments["per_device_train_batch_size"] < 2:
            raise ConfigurationError("kto needs two rows at a time to estimate its reference point; raise micro_batch")
        parts = {part: _mismatched(rows, settings) for part, rows in parts.items()}
    if not parts["validation"]:
        arguments = arguments | {"eval_strategy": "no"}
    whole = settings.method == "full"
    config, trainer = (DPOConfig, PairTrainer) if settings.objective == "dpo" else (KTOConfig, JudgedTrainer)
    built = trainer(
        model=wrap(model, settings, init) if init is not None or whole else model,
        ref_model=copy.deepcopy(model).requires_grad_(False) if whole else None,
        peft_config=adapter_config(settings, model) if init is None else None,
        args=config(**arguments, **extra),
        train_dataset=Table.from_list(parts["train"]),
        eval_dataset=Table.from_list(parts["validation"]) if parts["validation"] else None,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    built.steps = Steps(len(parts["train"]), settings.batch_size, settings.seed, keep=settings.objective == "kto")
    return built, counts


def _pairs(dataset: Dataset, part: Part, one: Encode, limit: int, counts: Counter[str]) -> Iterator[Encoded]:
    pair: Pair
    for pair in dataset.pairs(part):
        chosen = one(pair.prompt, pair.chosen, tools=pair.tools)
        rejected = one(pair.prompt, pair.rejected, tools=pair.tools)
        if max(len(chosen.ids), len(rejected.ids)) > limit:
            counts[TOO_LONG] += 1
        elif chosen.reply_ids == rejected.reply_ids:
            counts[EQUAL] += 1
        else:
            yield {"prompt_ids": chosen.prompt_ids, "chosen_ids": chosen.reply_ids, "rejected_ids": rejected.reply_ids}


def _judged(dataset: Dataset, part: Part, one: Encode, limit: int, counts: Counter[str]) -> Iterator[Encoded]:
    judged: Judged
    for judged in dataset.judged(part):
        turn = one(judged.prompt, judged.completion, tools=judged.tools)
        if len(turn.ids) > limit:
            counts[TOO_LONG] += 1
        else:
            yield {"prompt_ids": turn.prompt_ids, "completion_ids": turn.reply_ids, "label": judged.good}


def _balance(rows: Sequence[Encoded]) -> dict[str, float]:
    """Weigh the rarer kind up, so that both weigh the same in the loss (KTO's eq. 8)."""
    good = sum(row["label"] for row in rows)
    bad = len(rows) - good
    if not good or not bad:
        raise EmptyHarvestError(
            f"kto needs good and bad replies, and all {len(rows)} are {'good' if good else 'bad'}; "
            "record episodes of both kinds, or train with --objective sft"
        )
    return {"desirable_weight": max(1.0, bad / good), "undesirable_weight": max(1.0, good / bad)}


def _mismatched(rows: Sequence[Encoded], settings: TrainSettings) -> list[Encoded]:
    """Shuffle rows, and give each a reply to another prompt of the same step, by which KTO's reference is estimated."""
    rows = random.Random(settings.seed).sample(list(rows), len(rows))
    out = []
    for step in _batches(rows, settings.batch_size):
        for at, row in enumerate(step):
            others = [*step[at + 1 :], *step[:at]] or [row]
            other = next((each for each in others if each["prompt_ids"] != row["prompt_ids"]), others[0])
            out.append(row | {"KL_completion_ids": other["completion_ids"]})
    return out


def _batches(rows: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))
