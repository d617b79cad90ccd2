"""The options by which a dataset is made from traces, for every command that makes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from cmat_graph.tuning.sources import HarvestSettings
from cmat_graph.types import Task

_DEFAULT = HarvestSettings()
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_OPTIONS: tuple[Decorator, ...] = (
    click.option("--node", default=_DEFAULT.node, show_default=True, help="The node to train for, also of your graph."),
    click.option("--run", help="Only episodes of this run."),
    click.option("--env", help="Only episodes of this environment."),
    click.option(
        "--split", default=_DEFAULT.split, show_default=True, help="Only this split; 'all' takes all but evaluations."
    ),
    click.option(
        "--min-reward",
        type=click.FloatRange(0, 1),
        default=_DEFAULT.min_reward,
        show_default=True,
        help="Reward that counts as solved; 0 also takes episodes that have none.",
    ),
    click.option(
        "--max-per-task",
        type=click.IntRange(0),
        default=_DEFAULT.max_per_task,
        show_default=True,
        help="Rows of one task at most; 0 is no limit.",
    ),
    click.option(
        "--max-chars", type=click.IntRange(1), default=_DEFAULT.max_chars, show_default=True, help="Longest row."
    ),
    click.option(
        "--near-equal",
        type=click.FloatRange(0, 1, min_open=True),
        default=_DEFAULT.near_equal,
        show_default=True,
        help="Rows of a task that share this much count as one.",
    ),
    click.option(
        "--augment",
        multiple=True,
        type=click.Choice(["paraphrase", "rename"]),
        help="Make more rows: other words, other names. May be given twice.",
    ),
    click.option("--copies", type=click.IntRange(0), default=_DEFAULT.copies, show_default=True, help="Per row."),
    click.option(
        "--reason-first/--as-recorded",
        default=_DEFAULT.reason_first,
        show_default=True,
        help="Put a reply's reasoning before its action.",
    ),
    click.option("--balance", is_flag=True, help="Weigh environments equally."),
    click.option(
        "--eta",
        type=click.FloatRange(0, 1),
        default=_DEFAULT.eta,
        show_default=True,
        help="Share of agent rows in the loss; the rest is general.",
    ),
    click.option("--general", default="", help="JSONL file of general instructions."),
    click.option(
        "--validation-share",
        type=click.FloatRange(0, 1, max_open=True),
        default=_DEFAULT.validation_share,
        show_default=True,
        help="Share of tasks to choose by.",
    ),
)
NAMES = tuple(HarvestSettings.__dataclass_fields__)


def harvest_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose and shape the rows; `seed` is the command's own."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def held_out_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--held-out`; `read_held_out` reads it."""
    return click.option(
        "--held-out",
        "held_out",
        multiple=True,
        metavar="FILE",
        help="Tasks of an evaluation, as --tasks reads them: nothing of them is learned. May be repeated.",
    )(function)


def read_held_out(files: Sequence[str], env: str | None = None) -> list[Task]:
    """Read the tasks that an evaluation is made on, whatever their split.

    Args:
        files: JSONL task files.
        env: The environment that knows their form; None, or one that there is not, takes the default.

    Raises:
        TaskFileError: A file is missing or malformed; the message names the line.

    """
    if not files:
        return []
    from cmat_graph.envs import ENVIRONMENTS, load_env

    name = env if env in ENVIRONMENTS else ENVIRONMENTS[0]
    return [task for file in files for task in load_env(name, tasks=file).tasks()]


def to_harvest_settings(options: Mapping[str, Any]) -> HarvestSettings:
    """Read the settings out of a command's options.

    Raises:
        ConfigurationError: They cannot work together.

    """
    chosen = {name: options[name] for name in NAMES if name in options}
    return HarvestSettings(**{**chosen, "split": None if chosen.get("split") == "all" else chosen.get("split")})
