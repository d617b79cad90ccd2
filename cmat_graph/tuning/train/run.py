"""One training, from a dataset to a folder of weights. Read top to bottom: load, wrap, build, go on, train, save."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from datasets import disable_progress_bars
from transformers import PrinterCallback, ProgressCallback

from cmat_graph.rendering.template import render_sample
from cmat_graph.tuning.dataset import Dataset, Example, Judged, Pair, Row
from cmat_graph.tuning.encoding import to_ids
from cmat_graph.tuning.machine import check_machine
from cmat_graph.tuning.settings import Objective, TrainSettings
from cmat_graph.tuning.train.arguments import to_arguments
from cmat_graph.tuning.train.checkpoints import Checkpoints, Epochs, fingerprint, last_checkpoint, step_of
from cmat_graph.tuning.train.guards import Curves, Guard, Progress, disk_errors
from cmat_graph.tuning.train.loading import load_model, load_tokenizer
from cmat_graph.tuning.train.methods import begin_with_words, quiet_peft, wrap
from cmat_graph.tuning.train.preference import preference_trainer
from cmat_graph.tuning.train.processes import first, join, wait, world_size
from cmat_graph.tuning.train.saving import LOGS, save
from cmat_graph.tuning.train.sft import sft_trainer

PACKAGES = ("cmat-graph", "torch", "transformers", "peft", "trl", "accelerate", "datasets")
ROWS: dict[Objective, type[Row]] = {"sft": Example, "dpo": Pair, "kto": Judged}
"""What each objective is trained on."""
MOST_POINTS = 200
"""Of a curve on the card; longer ones are averaged over stretches. TensorBoard has every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training left behind, beside the files."""

    loss: list[float]
    """The training loss, step by step, or averaged over stretches of steps."""
    eval_loss: list[float]
    """The loss on the validation rows after each epoch; empty without such rows."""
    examples: int
    """Rows that were trained on."""
    counts: dict[str, int]
    """Rows and targets that were left out, by reason."""
    steps: int
    tokens: int
    """Tokens that were read in training, over all epochs and processes."""
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    processes: int = 1
    resumed_from: int = 0
    """The step after which an interrupted training went on; 0 if it ran through."""


def train(
    dataset: Dataset,
    location: str,
    target: Path,
    *,
    settings: TrainSettings = TrainSettings(),
    work: Path,
    init: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a base on a dataset and save what came of it.

    A second call with the same data, base and settings goes on from the last checkpoint of the first, if that one was
    killed; other ones begin anew in a folder of their own. Under torchrun every process calls it, with the same
    arguments; the first one writes.

    Args:
        dataset: Conversations for `sft`, pairs for `dpo`, judged replies for `kto`.
        location: The base, as `from_pretrained` takes it.
        target: Folder for `adapter_config.json` and `adapter_model.safetensors`, or for a whole model if the method
            is `full`; TensorBoard's files come into its `logs/`. Give an empty one: it is not written aside.
        settings: How to train.
        work: Folder for checkpoints; it may be removed when the training is through.
        init: An adapter of the same method to go on from.
        progress: Called after each step, in the first process.

    Raises:
        EmptyHarvestError: There are no rows, or every row is longer than the limit.
        ModelNotFoundError: The base cannot be loaded.
        ConfigurationError: The settings cannot work here.
        TrainingError: The loss is no number any more; the last good checkpoint is kept in `work`.
        OSError: The disk is full.

    Example:
        >>> train(Dataset("dataset"), "Qwen/Qwen3-0.6B", Path("out"), work=Path("work"))  # doctest: +SKIP

    """
    start = time.monotonic()
    check_machine(settings)
    _be_quiet()
    join()
    run = work / fingerprint(dataset.hash, location, settings, init)
    resumed = first(lambda: last_checkpoint(run))  # nobody writes one before all know where to begin

    whole = settings.method == "full"
    tokenizer = load_tokenizer(location)
    model = load_model(str(init) if init and whole else location, settings)
    validates = dataset.count(ROWS[settings.objective], "validation") > 0
    arguments = to_arguments(settings, location, run, validates=validates)
    callbacks = [
        Guard(run, progress),
        Curves(run / LOGS, step_of(resumed)),
        Checkpoints(run, resumed, keep_trained=settings.method == "p-tuning"),
    ]
    begun = None if whole else init
    with quiet_peft():
        if settings.objective == "sft":
            model = wrap(model, settings, begun)
            trainer, counts = sft_trainer(model, tokenizer, dataset, settings, arguments, callbacks)
        else:
            trainer, counts = preference_trainer(model, tokenizer, dataset, settings, arguments, callbacks, begun)
        if settings.method == "prefix" and init is None:
            begin_with_words(trainer.model, to_ids(tokenizer, render_sample(tokenizer) or tokenizer.eos_token))
        for printing in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printing)
        trainer.add_callback(Epochs(trainer.steps))
        with disk_errors("a checkpoint", run):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    save(trainer, tokenizer, target, settings, run / LOGS)
    wait()
    history = trainer.state.log_history
    return Trained(
        loss=_curve([entry["loss"] for entry in history if "loss" in entry]),
        eval_loss=_curve([entry["eval_loss"] for entry in history if "eval_loss" in entry]),
        examples=len(trainer.train_dataset),
        counts=dict(counts),
        steps=trainer.state.global_step,
        tokens=int(next((entry["num_tokens"] for entry in reversed(history) if "num_tokens" in entry), 0)),
        seconds=round(time.monotonic() - start, 1),
        versions={name: version(name) for name in PACKAGES},
        processes=world_size(),
        resumed_from=step_of(resumed),
    )


def _be_quiet() -> None:
    """Leave the screen to the command."""
    disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def _curve(values: list[float]) -> list[float]:
    """Shorten a curve by averaging stretches of equal length."""
    size = -(-len(values) // MOST_POINTS) or 1
    stretches = [values[at : at + size] for at in range(0, len(values), size)]
    return [round(sum(stretch) / len(stretch), 5) for stretch in stretches]
