"""What finetuning costs beside TRL's own trainer and a bare loop, and what it gives.

Two models: `random`, a Llama of 4.5 million random weights whose chat template shows the rules of the environment as
those of real models do, and TinyAgent-nano (1.9 million), whose template drops them. A figure's value is that of
`random`, nano is in its detail. Both train LoRA of rank 16 on all linear layers, on rows harvested from episodes that
were played for it; every arm is given the same rows, encoded beforehand, the same weights and number of steps, in
float32. Arms go in turns; speed is told by the processor's seconds, since other programs may be at work too, and by
the clock's beside it. Memory is the peak of a process of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.bases import NANO_FOLDER
from cmat_graph.envs import load_env
from cmat_graph.models import ExpertChatModel
from cmat_graph.traces import SQLTraceStore
from cmat_graph.tuning.dataset import Dataset, Example
from cmat_graph.tuning.encoding import EncodedRow, encode
from cmat_graph.tuning.harvest import harvest
from cmat_graph.tuning.sources import HarvestSettings

from . import _tuning_arms
from ._shared import figure, say
from ._tuning_gpu import on_gpu
from ._tuning_harvest import measure_harvest
from ._tuning_improve import measure_improve
from ._weights import random_llama

SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "intermediate_size": 688,
    "num_attention_heads": 4,
    "vocab_size": 768,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
"""A Llama of 4.5 million parameters."""
WITH_RULES = (
    "{%- for message in messages %}{{ '<|assistant|>' if message.role == 'assistant' else '<|user|>' }}"
    "{{ message.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TASKS, ROUNDS, BATCH = 160, 3, 8
STEPS = {"random": 3, "nano": 40}
"""Steps of one turn: a second or more, so that what a trainer does once hardly counts."""
CURVE = 6
"""Steps that the loss curves are compared over."""
NEAR = 0.001
"""Mean relative distance of two loss curves that count as equal: sums in another order differ by far less in float32,
and one update more or less, or one row, by far more."""
TIMED = ("ours", "ours_unshared", "trl_default", "trl_tuned", "bare_loop")


def measure(size: int = ROUNDS) -> Iterator[dict[str, Any]]:
    """Yield the figures; `size` is the number of rounds of the training arms."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory(prefix="cmat-bench-") as scratch:
        folder = Path(scratch)
        say("recording episodes and harvesting them")
        examples = harvested(folder, TASKS)
        random = random_llama(folder / "random", SHAPE)
        (random / "chat_template.jinja").write_text(WITH_RULES, encoding="utf-8")
        bases = {"random": random, "nano": NANO_FOLDER}
        rows = {name: encoded(examples, base) for name, base in bases.items()}
        yield from _speed(bases, rows, size)
        yield _curves(bases, rows)
        yield _memory(bases, rows, folder)
        yield _joined(examples, bases)
    yield from _others()
    yield from on_gpu()


def harvested(folder: Path, tasks: int) -> list[Example]:
    """Play database tasks with the expert, and harvest what was recorded."""
    env = load_env("database", size=2 * tasks, seed=3)
    traces = SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    run_episodes(graph, env.tasks("train")[:tasks], env=env, traces=traces)
    dataset: Dataset = harvest(traces, folder / "dataset", settings=HarvestSettings(validation_share=0.0))
    return list(dataset.examples())


def encoded(examples: Sequence[Example], base: Path, *, join: bool = True) -> list[EncodedRow]:
    """Return the rows of examples as a base reads them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    return [row for each in examples for row in encode(each, tokenizer, limit=1024, join=join).rows]


def _speed(bases: dict[str, Path], rows: dict[str, list[EncodedRow]], rounds: int) -> Iterator[dict[str, Any]]:
    detail: dict[str, Any] = {}
    for name, base in bases.items():
        taken: dict[str, list[dict[str, float]]] = {arm: [] for arm in TIMED}
        for turn in range(-1, rounds):
            say(f"training {name}: {'warm' if turn < 0 else f'round {turn + 1} of {rounds}'}")
            for arm in TIMED[turn % len(TIMED) :] + TIMED[: turn % len(TIMED)]:
                train = _tuning_arms.make(arm, base, rows[name], steps=1 if turn < 0 else STEPS[name], batch=BATCH)
                told = _tuning_arms.timed(train)
                if turn >= 0:
                    taken[arm].append(told)
        mean = sum(len(row.ids) for row in rows[name]) / len(rows[name])
        tokens = {arm: _tuning_arms.tokens(arm, rows[name], steps=STEPS[name], batch=BATCH) for arm in TIMED}
        middle = {
            arm: {kind: statistics.median(each[kind] for each in told) for kind in ("wall_s", "cpu_s")}
            for arm, told in taken.items()
        }
        detail[name] = {
            arm: {
                "tokens_per_cpu_s": round(tokens[arm] / times["cpu_s"], 1),
                "tokens_per_s": round(tokens[arm] / times["wall_s"], 1),
            }
            for arm, times in middle.items()
        } | {"rows": len(rows[name]), "tokens_per_row": round(mean, 1)}
    common = {"batch": BATCH, "steps": STEPS, "rounds": rounds, "threads": torch.get_num_threads()}
    for metric, other, least in (
        ("train_vs_trl_default", "trl_default", 2.0),
        ("train_vs_trl_tuned", "trl_tuned", 1.2),
        ("train_vs_bare_loop", "bare_loop", 0.9),
    ):
        ratios = {
            name: {
                "ratio": _ratio(told, "ours", other, "tokens_per_cpu_s"),
                "ratio_by_the_clock": _ratio(told, "ours", other, "tokens_per_s"),
                "ratio_without_sharing_beginnings": _ratio(told, "ours_unshared", other, "tokens_per_cpu_s"),
            }
            for name, told in detail.items()
        }
        yield figure(metric, ratios["random"]["ratio"], ">=", least, ratios | {"arms": detail} | common)


def _ratio(told: dict[str, Any], one: str, other: str, kind: str) -> float:
    return round(told[one][kind] / told[other][kind], 3)


def _curves(bases: dict[str, Path], rows: dict[str, list[EncodedRow]]) -> dict[str, Any]:
    """The losses of our trainer and TRL's on the same batches in the same order."""
    detail: dict[str, Any] = {}
    for name, base in bases.items():
        say(f"loss curves of {name}")
        curves = {
            arm: _tuning_arms.make(arm, base, rows[name], steps=CURVE, batch=BATCH)()
            for arm in ("ours", "trl_same_order", "bare_loop")
        }
        apart = [
            sum(abs(one - other) / other for one, other in zip(curves["ours"], curves[arm], strict=True)) / CURVE
            for arm in ("trl_same_order", "bare_loop")
        ]
        detail[name] = {"from_trl": apart[0], "from_bare_loop": apart[1], "curves": curves}
    worst = max(each["from_trl"] for each in detail.values())
    told = figure("loss_curve_distance", worst, "<=", NEAR, detail | {"steps": CURVE, "batch": BATCH})
    return told | {"value": worst}


def _memory(bases: dict[str, Path], rows: dict[str, list[EncodedRow]], folder: Path) -> dict[str, Any]:
    """Peak resident memory of each arm in a process of its own."""
    detail: dict[str, Any] = {}
    for name, base in bases.items():
        file = folder / f"{name}.pkl"
        file.write_bytes(pickle.dumps([(row.ids, row.weights) for row in rows[name]]))
        detail[name] = {}
        for arm in ("ours", "trl_default"):
            say(f"memory of {arm} on {name}")
            command = [sys.executable, _tuning_arms.__file__, arm, str(base), str(file), str(STEPS[name]), str(BATCH)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout.splitlines()[-1])
            detail[name][arm] = {key: round(told[key]) for key in ("peak_mb", "before_mb")}
        detail[name]["ratio"] = round(detail[name]["ours"]["peak_mb"] / detail[name]["trl_default"]["peak_mb"], 3)
    return figure("train_memory_vs_trl_default", detail["random"]["ratio"], "<=", 1.0, detail)


def _joined(examples: Sequence[Example], bases: dict[str, Path]) -> dict[str, Any]:
    """Tokens of one row a turn over those of turns that share a row; (N + 1) / 2 for N equal turns."""
    detail: dict[str, Any] = {}
    for name, base in bases.items():
        joined, apart = (encoded(examples, base, join=join) for join in (True, False))
        counts = [sum(len(row.ids) for row in each) for each in (joined, apart)]
        detail[name] = {"joined": counts[0], "a_row_a_turn": counts[1], "ratio": round(counts[1] / counts[0], 3),
                        "turns_a_row": round(len(apart) / len(joined), 2)}  # fmt: skip
    return figure("joined_vs_rows", detail["random"]["ratio"], ">=", 1.0, detail)


def _others() -> Iterator[dict[str, Any]]:
    """The figures of the harvest and of self-improvement."""
    say("harvest")
    yield from measure_harvest()
    say("improve")
    yield from measure_improve()
