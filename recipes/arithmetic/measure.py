"""Measure an arithmetic base as debates use it: single samples, votes, and a debate of untuned copies.

    python recipes/arithmetic/measure.py cmat_graph/models/abacus --tasks path/to/problems.jsonl --limit 500

Prints a table with standard errors. All calls go through the project's engine in large batches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[2]))

from cmat_graph.answers import answer_kind, vote
from cmat_graph.debate.many import run_debates
from cmat_graph.debate.records import Debate, Said
from cmat_graph.debate.rounds import DebateSettings
from cmat_graph.envs import load_env
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.types import Task

NUMBER = answer_kind("number")
SAMPLES = 9


def mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean in percent and its standard error, over questions."""
    middle = sum(values) / len(values)
    spread = sum((value - middle) ** 2 for value in values) / max(1, len(values) - 1)
    return 100 * middle, 100 * math.sqrt(spread / len(values))


def measure(base: str, tasks: str, limit: int, seed: int, *, debate: bool = True) -> dict[str, object]:
    """Play all questions in every way; return percentages with their standard errors, and counts."""
    env = load_env("questions", tasks=tasks, seed=seed, size=2 * limit)
    questions = env.tasks()[:limit]

    def right(task: Task, answer: str | None) -> float:
        session = env.open(task)
        session.step(f"Answer: {answer}" if answer is not None else "")
        return session.score()

    sampled = TinyAgent.load(base, temperature=1.0, top_p=0.9)
    began, before = time.perf_counter(), sampled.engine.stats  # type: ignore[attr-defined]
    alone = run_debates(questions, generators=sampled, agents=SAMPLES, settings=DebateSettings(rounds=1, seed=seed))
    seconds = time.perf_counter() - began
    tokens = sampled.engine.stats.reply_tokens - before.reply_tokens  # type: ignore[attr-defined]

    def voted(count: int) -> list[float]:
        return [
            right(each.task, vote([t.answer for t in each.turns[:count]], NUMBER, seed=each.task.id).answer)
            for each in alone
        ]

    greedy = run_debates(questions, generators=TinyAgent.load(base), agents=1, settings=DebateSettings(rounds=1))
    table = {
        "single": mean([sum(right(each.task, t.answer) for t in each.turns) / SAMPLES for each in alone]),
        "greedy": mean([right(each.task, each.answer) for each in greedy]),
        "majority of 3": mean(voted(3)),
        "majority of 9": mean(voted(9)),
    }
    said: list[Said] = [turn for each in alone for turn in each.turns]
    if debate:
        played = run_debates(questions, generators=sampled, agents=3, settings=DebateSettings(seed=seed))
        table["debate"] = mean([right(each.task, each.answer) for each in played])
        for role in ("generator", "critic"):
            turns = [[t for t in each.turns if t.role == role] for each in played]
            table[f"debate, one {role}"] = mean(
                [sum(right(each.task, t.answer) for t in some) / 3 for each, some in zip(played, turns, strict=True)]
            )
        said += [turn for each in played for turn in (*each.turns, *each.summaries)]
        _show(played[0])
    replies = [turn for turn in said if turn.role != "summary"]
    return {
        "questions": len(questions),
        "accuracy": table,
        "unreadable": 100 * sum(getattr(turn, "answer", None) is None for turn in replies) / len(replies),
        "cut": 100 * sum(turn.output_tokens >= sampled.max_tokens for turn in said) / len(said),
        "tokens a single reply": tokens / (SAMPLES * len(questions)),
        "tokens/s": tokens / seconds,
        "right by opening": _by_opening(alone, right),
    }


def _by_opening(debates: Sequence[Debate], right: object) -> dict[str, tuple[int, float]]:
    """Return how often each style was taken, by its first words, and the percentage right."""
    scores: dict[str, list[float]] = {}
    for each in debates:
        for turn in each.turns:
            opening = turn.reply.split("\n")[0]
            style = opening if opening.endswith(".") and not any(c.isdigit() for c in opening) else "(words)"
            scores.setdefault(style, []).append(right(each.task, turn.answer))  # type: ignore[operator]
    return {style: (len(got), round(100 * sum(got) / len(got), 1)) for style, got in sorted(scores.items())}


def _show(debate: Debate) -> None:
    for turn in [*debate.turns[:2], *debate.summaries[:1], *debate.turns[3:4]]:
        print(f"--- {turn.node}, asked:\n{turn.messages[-1]['content']}\n--- says:\n{turn.reply}")


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="abacus")
    parser.add_argument("--tasks", default="builtin", help="JSONL with `question` and `answer`")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-debate", action="store_true")
    options = parser.parse_args()
    result = measure(options.base, options.tasks, options.limit, options.seed, debate=not options.no_debate)
    accuracy = result.pop("accuracy")
    for name, (middle, error) in accuracy.items():  # type: ignore[attr-defined]
        print(f"{name:22} {middle:6.2f} ± {error:.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
