"""`cmat-graph debate`: ask a society one question, or measure it on a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cmat_graph.cli import print_json
from cmat_graph.cli.shared import console, json_option, open_tasks, progress, visible
from cmat_graph.errors import ConfigurationError

if TYPE_CHECKING:  # `--help` does not wait for LangChain
    from cmat_graph.adapters import AdapterCard
    from cmat_graph.debate import Debate, Seats
    from cmat_graph.debate.comparing import Arm

BASE, AGENTS = "abacus", 3
USUAL = {"rounds": 2, "temperature": 1.0, "top_p": 0.9, "max_tokens": 256}
PACKS = ("arithmetic", "gsm8k", "math", "choice", "open", "verdict")


@click.command("debate")
@click.argument("question", required=False)
@click.option("--env", "env_name", default="questions", show_default=True, help="Environment of a question set.")
@click.option("--tasks", help="Question file or folder, or 'builtin'; needed where there is no QUESTION.")
@click.option("--split", default="test", show_default=True, help="Only questions of this split; 'all' takes all.")
@click.option("--limit", type=click.IntRange(1), help="At most this many questions.")
@click.option("--size", type=click.IntRange(1), default=200, show_default=True, help="How many built-in ones to make.")
@click.option("--task-seed", type=int, default=7, show_default=True, help="Seed of the built-in ones.")
@click.option("--base", help="abacus, nano, a folder, a hub id, provider:model; by default the society's, or abacus.")
@click.option("--agents", type=click.IntRange(1), help="How many debate; by default as many as are named, or 3.")
@click.option("--rounds", type=click.IntRange(1), help="With the generators' one; by default the society's, or 2.")
@click.option("--generator", "generators", multiple=True, metavar="NODE/NAME", help="Adapter of a generator, in turn.")
@click.option("--critic", "critics", multiple=True, metavar="NODE/NAME", help="Adapter of a critic, in turn.")
@click.option("--adapters", "adapters_dir", default="adapters", show_default=True, help="Adapter registry.")
@click.option("--society", "society_dir", help="Folder of a trained society: its base, adapters and prompts.")
@click.option("--iteration", type=click.IntRange(1), help="Which of the society's iterations; by default the last.")
@click.option("--pack", type=click.Choice(PACKS), help="Prompts; by default those of the question set, or arithmetic.")
@click.option("--summary/--no-summary", default=True, help="Sum others' solutions up for critics, or show them whole.")
@click.option("--mode", type=click.Choice(["critique", "cooperate", "identity"]), default="critique", show_default=True)
@click.option("--stop-when-unanimous", is_flag=True, help="End after a round in which all agree.")
@click.option("--equal-calls/--no-equal-calls", default=True, help="Measure a vote of the base at as many calls, too.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all draws.")
@click.option("--temperature", type=click.FloatRange(0), help="By default the society's, or 1.")
@click.option("--top-p", type=click.FloatRange(0, 1), help="By default the society's, or 0.9.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest reply; by default the society's, or 256.")
@click.option("--traces", "traces_url", help="Trace database; without it no trace is kept.")
@click.option("--run", "run_name", default="debate", show_default=True, help="Label in the traces; goes on by it.")
@click.option("--concurrency", type=click.IntRange(1), default=16, show_default=True, help="Calls of a remote model.")
@json_option()
def command(
    *,
    question: str | None,
    env_name: str,
    tasks: str | None,
    split: str,
    limit: int | None,
    size: int,
    task_seed: int,
    pack: str | None,
    summary: bool,
    mode: Any,
    rounds: int | None,
    stop_when_unanimous: bool,
    equal_calls: bool,
    seed: int,
    traces_url: str | None,
    run_name: str,
    concurrency: int,
    as_json: bool,
    **seated: Any,
) -> None:
    """Let agents debate: about QUESTION, or about a question set, and measure when that pays.

    For a set the table shows one call of the base, a vote of the base at as many calls as the debate takes, and the
    debate. A recorded run that was stopped goes on with the same command.

    \b
    Examples:
      cmat-graph debate "What is the result of 3+4*5+6-7*8?"
      cmat-graph debate --tasks builtin --limit 50
      cmat-graph debate --tasks test.jsonl --society society/ --traces sqlite:///debates.db --json
      cmat-graph debate --base openai:gpt-5-mini --pack math "Solve x^2 = 2 for x > 0."
    """
    if (question is None) == (tasks is None):
        raise ConfigurationError("give either a QUESTION or --tasks: a file, a folder or 'builtin'")
    from cmat_graph.debate import DebateSettings, run_debates
    from cmat_graph.debate.prompts import fitting_pack
    from cmat_graph.society.evaluating import refuse_learned
    from cmat_graph.traces.sql import SQLTraceStore
    from cmat_graph.types import Task

    seats, cards, trained_pack, rounds = _take_seats(summarise=summary, rounds=rounds, **seated)
    settings = DebateSettings(
        rounds=rounds, summarise=summary, mode=mode, stop_when_unanimous=stop_when_unanimous, seed=seed
    )
    traces = SQLTraceStore(traces_url) if traces_url else None
    common: dict[str, Any] = {"settings": settings, "traces": traces, "concurrency": concurrency}
    if question is not None:
        [debate] = run_debates(
            [Task(id=_id_of(question), prompt=question)],
            generators=seats.generators,
            critics=seats.critics,
            summariser=seats.summariser,
            pack=pack or trained_pack or "arithmetic",
            run=run_name,
            **common,
        )
        print_json(debate.to_json()) if as_json else _show(debate)
        return
    assert tasks is not None
    env, chosen = open_tasks(env_name, tasks, split, limit, size=size, seed=task_seed)
    prompts = fitting_pack(env, chosen, pack or trained_pack)
    refuse_learned(cards, chosen)
    from cmat_graph.debate.comparing import compare_debate

    done, total = 0, 2 * len(chosen)
    with progress(f"{run_name}: {env.name}", total) as show:

        def report(debate: Debate) -> None:
            nonlocal done
            done += 1
            show(done, total, "debates" if done <= len(chosen) else "votes")

        arms = compare_debate(
            chosen, seats, env=env, pack=prompts, equal_calls=equal_calls, run=run_name, report=report, **common
        )
    if as_json:
        told = {"arms": [arm.to_json() for arm in arms], "pack": prompts, "traces": traces.url if traces else None}
        print_json(told | {"gain": _gain(arms)})
    else:
        _print_arms(arms, f"{env.name}, {len(chosen)} questions")


def _take_seats(
    *,
    base: str | None,
    agents: int | None,
    generators: Sequence[str],
    critics: Sequence[str],
    adapters_dir: str,
    society_dir: str | None,
    iteration: int | None,
    summarise: bool,
    rounds: int | None,
    temperature: float | None,
    top_p: float | None,
    max_tokens: int | None,
) -> tuple[Seats, Sequence[AdapterCard], str, int]:
    """Open the models; return them, their adapters, the prompts that a trained society has, and the rounds."""
    from cmat_graph.adapters import AdapterRegistry
    from cmat_graph.debate import Seats
    from cmat_graph.models import load_model

    usual: dict[str, Any] = dict(USUAL)
    registry, pack = AdapterRegistry(adapters_dir), ""
    speaking: list[str | None] = list(generators) or [None]
    judging: list[str | None] = list(critics)
    cards: Sequence[AdapterCard] = ()
    if society_dir is not None:
        if generators or critics or base or agents:
            raise ConfigurationError(
                "--society brings its own agents; leave out --base, --agents, --generator and --critic"
            )
        from cmat_graph.society.loading import open_society

        trained = open_society(society_dir, iteration=iteration)
        base, pack, registry, usual = trained.base, trained.pack, trained.registry, trained.society
        cards = trained.cards
        speaking = [card.id if card is not None else None for card in trained.team.generators]
        judging = [card.id if card is not None else None for card in trained.team.critics]
    elif iteration is not None:
        raise ConfigurationError("--iteration is of a trained society; give --society DIR")
    given = {"rounds": rounds, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    drawn: dict[str, Any] = {name: usual[name] if value is None else value for name, value in given.items()}
    rounds = int(drawn.pop("rounds"))
    summarise = summarise and rounds > 1
    if society_dir is None:
        cards = [registry.get(name) for name in dict.fromkeys((*generators, *critics))]
        speaking *= (agents or AGENTS) if len(speaking) == 1 else 1
    if len(judging) == 1:
        judging *= len(speaking)
    opened: dict[str | None, Any] = {}

    def load(adapter: str | None) -> Any:
        if adapter not in opened:
            opened[adapter] = load_model(base or BASE, adapter=adapter, adapters=registry, **drawn)
        return opened[adapter]

    seats = Seats.of(
        [load(name) for name in speaking],
        [load(name) for name in judging] if judging else None,
        load(None) if summarise and len(speaking) > 1 else None,
        agents=agents,
        summarise=summarise,
    )
    return seats, cards, pack, rounds


def _id_of(question: str) -> str:
    import hashlib

    return hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()[:16]


def _show(debate: Debate) -> None:
    """Print a debate so that it can be read."""
    for number in range(1, debate.rounds + 1):
        click.echo(click.style(f"Round {number}", bold=True))
        for turn in debate.round(number):
            if turn.summary:
                click.echo(f"  {turn.node} is told:\n{_indented(turn.summary, 6)}")
            answer = visible(turn.answer or "") or "nothing that can be read"
            said = f"failed: {visible(turn.error)}" if turn.error else f"answers {answer}"
            click.echo(f"  {turn.node} {said}\n{_indented(turn.reply, 6)}".rstrip())
    groups = [f"{debate.round(debate.rounds)[group[0]].answer}: {len(group)}" for group in debate.vote.groups]
    told = visible(", ".join(groups)) or "nobody gave an answer that can be read"
    click.echo(click.style("Vote", bold=True) + f"  {told}{'; a tie, drawn by the seed' if debate.vote.tied else ''}")
    click.echo(click.style("Answer", bold=True) + f"  {visible(debate.answer) or 'none'}")
    console.print(f"{debate.calls} calls, {debate.tokens} tokens, {debate.seconds:.1f} s")


def _indented(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line for line in visible(text).splitlines())


def _gain(arms: Sequence[Arm]) -> dict[str, float]:
    """Compare the debate with the arm before it, question by question."""
    from cmat_graph.report.estimates import estimate

    paired = [after - before for after, before in zip(arms[-1].scores, arms[-2].scores, strict=True)]
    return estimate([paired]).to_json()


def _print_arms(arms: Sequence[Arm], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("arm")
    for name in ("accuracy", "± s.e.", "calls", "tokens", "seconds"):
        table.add_column(name, justify="right")
    for arm in arms:
        cost = (f"{arm.calls:.1f}", f"{arm.tokens:.0f}", f"{arm.seconds:.2f}")
        table.add_row(arm.name, f"{arm.accuracy:.1%}", f"{arm.stderr:.1%}", *cost)
    Console().print(table)
    for arm in arms:
        if arm.failed:
            click.echo(f"{arm.name}: {arm.failed:,} calls failed; who failed has no answer, so this is too low")
    gain = _gain(arms)
    click.echo(f"debate against {arms[-2].name}, paired: {gain['mean']:+.1%} ± {gain['stderr']:.1%}")
