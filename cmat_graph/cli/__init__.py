"""The command line: `cmat-graph`. One command is one public call; each lives in a file of its name.

A command's file is imported when the command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

import click

COMMANDS = {
    "adapters": "Show, compare, promote, roll back, merge and export adapters.",
    "bench": "Run a benchmark of this checkout.",
    "dataset": "Make a dataset of recorded episodes, and look at it.",
    "debate": "Let agents debate: about one question, or a set, beside a vote at as many calls.",
    "demo": "Run the whole loop: play, record, distil, swap, measure.",
    "distill": "Train an adapter for a node from recorded episodes.",
    "evaluate": "Measure base and adapter, with and without the loop.",
    "experiment": "Ask the paper's questions: base, tuned and loop; data mix; parts of the loop.",
    "flaws": "Break gold actions on purpose, and teach a checker with them.",
    "improve": "Play, train, gate and swap, round after round.",
    "memory": "Look at the lessons, judge them, and keep their store in order.",
    "prompts": "Show the nodes' prompts, and copy them out to be changed.",
    "run": "Play tasks with the graph and record them.",
    "serve": "Serve base and adapters to OpenAI clients.",
    "society": "Finetune agents on their own debates, and compare that with all that is simpler.",
    "traces": "Look at what was recorded.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"cmat_graph.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cmat-graph")
def cli() -> None:
    """Play tasks with a checked, reflecting agent, record it, and distil it into small local adapters.

    \b
    Start here:
      cmat-graph demo
    """


def main() -> None:
    """Run the command line; each failure is one line that names the fix."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        resume = ", the same command with --resume goes on" if "run" in sys.argv[1:2] else ""
        resume = ", the same command goes on" if sys.argv[1:2] in (["distill"], ["improve"], ["society"]) else resume
        click.echo(f"stopped; what was recorded is kept{resume}", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as exc:  # our own trace and memory errors, a full disk, a missing right
        click.echo(f"error: {exc}", err=True)
        sys.exit(1)
    except (ValueError, LookupError, RuntimeError, ImportError) as exc:
        from cmat_graph.errors import CmatError

        if not isinstance(exc, CmatError):
            raise
        click.echo(f"error: {exc}", err=True)
        sys.exit(1)


def print_json(value: object) -> None:
    """Print one line of JSON on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))
