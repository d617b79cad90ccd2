"""`cmat-graph run`: play tasks and record them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.cli import print_json
from cmat_graph.cli.shared import (
    adapter_options,
    console,
    fallback_options,
    json_option,
    memory_options,
    open_memory,
    open_tasks,
    progress,
    replies_told,
    task_options,
    with_fallback,
)
from cmat_graph.errors import ConfigurationError
from cmat_graph.types import Budget

if TYPE_CHECKING:  # `--help` does not wait for LangGraph
    from cmat_graph.rollout import Outcome


@click.command("run")
@task_options("all")
@click.option(
    "--assistant", default="nano", show_default=True, help="expert, nano, a model folder, a hub id, or provider:model."
)
@adapter_options()
@fallback_options()
@click.option("--checker", default="probes", show_default=True, help="none, probes, or a model as for --assistant.")
@click.option("--reflector", help="Model that writes the lessons, as for --assistant.")
@click.option("--attempts", type=click.IntRange(1), default=1, show_default=True, help="Attempts at one task.")
@click.option("--tokens", type=click.IntRange(1), help="Token budget of one episode.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Time budget of one episode.")
@click.option("--prompts", help="Folder of your own NODE.md prompts; see: cmat-graph prompts --export DIR.")
@memory_options()
@click.option(
    "--freeze-memory/--learn",
    default=None,
    help="Read lessons and write none, or learn. By default it learns from training tasks alone.",
)
@click.option("--traces", "traces_url", default="sqlite:///traces.db", show_default=True, help="Trace database.")
@click.option("--run", "run_name", help="Label of this run in the traces; by default the assistant's name.")
@click.option("--resume", is_flag=True, help="Skip tasks that this run has already finished.")
@json_option()
def command(
    *,
    assistant: str,
    adapter_names: tuple[str, ...],
    adapters_dir: str,
    fallback: str | None,
    fallback_below: float | None,
    checker: str,
    reflector: str | None,
    attempts: int,
    tokens: int | None,
    seconds: float | None,
    prompts: str | None,
    memory: str | None,
    memory_server: str | None,
    embeddings: str | None,
    freeze_memory: bool | None,
    traces_url: str,
    run_name: str | None,
    resume: bool,
    concurrency: int,
    as_json: bool,
    **choice: Any,
) -> int:
    """Play tasks with the graph and record every step.

    \b
    Examples:
      cmat-graph run --assistant expert --split train
      cmat-graph run --tasks tasks.jsonl --assistant nano --attempts 3 --traces sqlite:///traces.db
      cmat-graph run --adapter assistant --adapter checker/1a2b3c4d --attempts 2
      cmat-graph run --tasks tasks.jsonl --assistant openai:gpt-5-mini --checker openai:gpt-5-mini
      cmat-graph run --tasks tasks.jsonl --adapter assistant --fallback openai:gpt-5-mini --fallback-below 0.7
    """
    from cmat_graph.evaluation import summarise
    from cmat_graph.graph import create_cmat_graph
    from cmat_graph.models import load_model
    from cmat_graph.resuming import finished
    from cmat_graph.rollout import run_episodes
    from cmat_graph.team import Team
    from cmat_graph.traces.sql import SQLTraceStore

    env, tasks = open_tasks(**choice)
    registry = AdapterRegistry(adapters_dir)
    seats = Team.of(adapter_names, registry).adapters

    def load(name: str, seat: str = "") -> Any:
        return load_model(name, adapter=seats.get(seat), adapters=registry, demonstrations=env.demonstrations)

    def own(seat: str, name: str | None) -> Any:
        """Open who sits beside the assistant: a model, an adapter on its own base, or on the one that is named."""
        card = seats.get(seat)
        return load(name or card.base, seat) if name or card else None  # type: ignore[union-attr]

    if "checker" in seats and checker == "none":
        raise ConfigurationError(f"--checker none leaves no seat for {seats['checker'].id}; leave one of them out")
    actor = with_fallback(load(assistant, "assistant"), load(fallback) if fallback else None, fallback_below)
    judge = own("checker", None if checker in ("none", "probes") else checker)
    store = open_memory(memory, memory_server, embeddings)
    graph = create_cmat_graph(
        actor,
        checker=judge or ("probes" if checker == "probes" else None),
        reflector=own("reflect", reflector),
        store=store,
        max_attempts=attempts,
        budget=Budget(tokens=tokens, seconds=seconds),
        prompts=prompts,
    ).compile()
    traces = SQLTraceStore(traces_url)
    run = run_name or "+".join([assistant, *adapter_names])
    adapter = seats["assistant"].id if "assistant" in seats else None
    settings: dict[str, Any] = {"assistant": assistant, "adapter": adapter, "checker": checker, "attempts": attempts}
    settings |= {f"{seat}_adapter": card.id for seat, card in seats.items() if seat != "assistant"}
    settings |= {
        name: value for name, value in (("tokens", tokens), ("seconds", seconds), ("prompts", prompts)) if value
    }
    if fallback:
        settings |= {"fallback": fallback, "fallback_below": actor.threshold}
    earlier = finished(traces, tasks, run=run, env=env, settings=settings) if resume else {}
    todo = [task for task in tasks if task.id not in earlier]
    done = len(earlier)
    with progress(f"{run}: {env.name}", len(tasks)) as show:
        solved = Counter(outcome.reward >= 1.0 for outcome in earlier.values())

        def report(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            solved[outcome.reward >= 1.0] += 1
            show(done, len(tasks), f"{solved[True]} solved")

        show(done, len(tasks))
        played = run_episodes(
            graph,
            todo,
            env=env,
            traces=traces,
            run=run,
            concurrency=concurrency,
            settings=settings,
            freeze_memory=freeze_memory,
            report=report,
        )
    result = summarise(run, [*earlier.values(), *played], env)
    if as_json:
        handed = {"handed_over": actor.counts} if fallback else {}
        print_json(
            handed
            | {
                "episodes": result.n,
                "success_rate": result.success_rate,
                "stderr": result.stderr,
                "score": result.score,
                "stopped": result.stopped,
                "traces": traces.url,
            }
        )
    else:
        parts = ", ".join(f"{name} {value:.3f}" for name, value in result.score.items())
        click.echo(f"{result.n} episodes, solved {result.success_rate:.1%} ± {result.stderr:.1%}; score: {parts}")
    if fallback:
        console.print(f"handed over: {replies_told(actor.counts)}")
    console.print(f"traces: {traces.url}")
    if traces.dropped:
        console.print(f"{traces.dropped} rows of the traces could not be written: {traces.why_dropped}")
    broken = [outcome.error for outcome in played if outcome.stopped == "error"]
    if broken:
        console.print(f"{len(broken)} of {len(played)} episodes broke off; the first: {broken[0]}")
    return 1 if traces.dropped or (played and len(broken) == len(played)) else 0
