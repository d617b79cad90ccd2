"""The options of a training, for every command that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from cmat_graph.cli.harvesting import _OPTIONS as HARVEST_OPTIONS
from cmat_graph.tuning.settings import METHODS, OBJECTIVES, TrainSettings

_DEFAULT = TrainSettings()
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_OPTIONS: tuple[Decorator, ...] = (
    click.option("--method", type=click.Choice(METHODS), default=_DEFAULT.method, show_default=True),
    click.option("--objective", type=click.Choice(OBJECTIVES), default=_DEFAULT.objective, show_default=True),
    click.option("--rank", type=click.IntRange(1), default=_DEFAULT.rank, show_default=True),
    click.option("--alpha", type=click.IntRange(1), default=_DEFAULT.alpha, show_default=True, help="LoRA's."),
    click.option("--dropout", type=float, default=_DEFAULT.dropout, show_default=True),
    click.option("--virtual-tokens", type=click.IntRange(1), default=_DEFAULT.virtual_tokens, show_default=True),
    click.option("--lr", "learning_rate", type=float, help="Peak learning rate.  [default: by method; 2e-3 for LoRA]"),
    click.option("--beta", type=float, default=_DEFAULT.beta, show_default=True, help="Of dpo and kto."),
    click.option("--epochs", type=float, default=_DEFAULT.epochs, show_default=True),
    click.option("--max-steps", type=click.IntRange(0), default=_DEFAULT.max_steps, help="End after so many steps."),
    click.option("--batch-size", type=click.IntRange(1), default=_DEFAULT.batch_size, show_default=True),
    click.option("--micro-batch", type=click.IntRange(0), default=_DEFAULT.micro_batch, help="Rows at a time."),
    click.option("--max-length", type=click.IntRange(1), default=_DEFAULT.max_length, show_default=True),
    click.option(
        "--join-turns/--single-turns", default=_DEFAULT.join_turns, help="Train an episode as one sequence, or turns."
    ),
    click.option("--save-steps", type=click.IntRange(0), default=_DEFAULT.save_steps, show_default=True),
    click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default=_DEFAULT.dtype),
    click.option("--sharding", type=click.Choice(["fsdp", "zero2", "zero3"]), help="Divide weights under torchrun."),
    click.option("--report-to", multiple=True, type=click.Choice(["wandb", "mlflow"]), help="Besides TensorBoard."),
    click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True),
)
NAMES = tuple(TrainSettings.__dataclass_fields__)


def train_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to train; `to_train_settings` reads them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def shaping_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a harvest that shape its rows, without those that choose episodes."""
    for option in reversed(HARVEST_OPTIONS[4:]):
        function = option(function)
    return function


def to_train_settings(options: Mapping[str, Any]) -> TrainSettings:
    """Read the settings out of a command's options.

    Raises:
        ConfigurationError: They cannot work together.

    """
    chosen = {name: options[name] for name in NAMES if name in options}
    chosen |= {"sharding": options.get("sharding") or "", "report_to": tuple(options.get("report_to") or ())}
    return TrainSettings(**chosen)
