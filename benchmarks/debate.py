"""What batches give a debate: beside the same debate call by call, and beside the engine alone with the same tokens.

100 questions, three agents, two rounds, with summaries: nine calls a question by six different adapters (LoRA of rank
16 on all linear layers, random weights) and their bare base, the bundled `abacus`. The arms go in turns over parts of
the questions; all have the same seeds, so they write the same tokens, and none knows prompts from another. The debates
are recorded in a trace database; the other arms are not.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cmat_graph.bases import resolve_base
from cmat_graph.debate import Debate, DebateSettings, Rules, Seats, run_debates
from cmat_graph.debate.asking import Answered, Asked, answered
from cmat_graph.debate.playing import Played, play
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.decoding.rows import Pending
from cmat_graph.nodes.calling import to_langchain
from cmat_graph.rendering.prompt import to_chat_dict
from cmat_graph.traces import SQLTraceStore
from cmat_graph.types import Task

from ._shared import figure, say
from ._weights import SHAPE, random_adapters, random_llama

QUESTIONS, AGENTS, ROUNDS, PARTS = 100, 3, 2, 3
TOKENS = 96
"""Longest reply."""
BASE = "abacus"
DRAWN = {"temperature": 1.0, "top_p": 0.9, "max_tokens": TOKENS}
MiB = 1 << 20


def measure(size: int = QUESTIONS) -> Iterator[dict[str, Any]]:
    """Yield the figures; `size` is the number of questions."""
    with tempfile.TemporaryDirectory(prefix="cmat-bench-") as scratch:
        folder = Path(scratch)
        say("making six adapters")
        base = folder / BASE
        shutil.copytree(resolve_base(BASE), base)
        cards = random_adapters(base, folder / "adapters", 2 * AGENTS)
        agents = [TinyAgent.load(card, dtype="float32", **DRAWN) for card in cards]
        noter = TinyAgent.load(str(base), dtype="float32", **DRAWN)
        hall = Hall(agents, noter, folder)
        yield from hall.race(questions(size))
        yield _memory(folder)


class Hall:
    """One society, asked in three ways."""

    def __init__(self, agents: Sequence[TinyAgent], noter: TinyAgent, folder: Path) -> None:
        self.generators, self.critics, self.noter = list(agents[:AGENTS]), list(agents[AGENTS:]), noter
        self.engine: Any = noter.engine
        self.traces = SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")
        self.settings = DebateSettings(rounds=ROUNDS)
        self.seats = Seats.of(self.generators, self.critics, noter)
        self.rules = Rules.of(self.settings, "arithmetic", AGENTS)

    def race(self, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        """Let the arms go in turns; yield how they compare."""
        size = -(-len(tasks) // PARTS)
        parts = [tasks[at : at + size] for at in range(0, len(tasks), size)]
        self._debates(tasks[:2], "warm")
        taken: dict[str, list[float]] = {"debates": [], "one_by_one": [], "raw": []}
        cpu: dict[str, list[float]] = {name: [] for name in taken}
        equal: list[bool] = []
        for i, part in enumerate(parts):
            played = self._timed("debates", lambda i=i: self._debates(tasks, f"part {i}"), taken, cpu)
            asked = self._asked(played)
            self._timed("raw", lambda asked=asked: self._raw(asked), taken, cpu)
            alone = self._timed("one_by_one", lambda part=part: self._one_by_one(part), taken, cpu)
            mine = [debate for debate in played if debate.task in part]
            equal += [
                a.reply == b.reply
                for debate, other in zip(mine, alone, strict=True)
                for a, b in zip(debate.turns, other.turns, strict=True)
            ]
            say(f"  part {i + 1} of {len(parts)}: " + ", ".join(f"{n} {each[-1]:.1f} s" for n, each in taken.items()))
        debates, raw = (statistics.median(taken[name]) for name in ("debates", "raw"))
        detail = {
            "questions": len(tasks),
            "calls": sum(debate.calls for debate in played),
            "tokens_read": sum(call.input_tokens for call in calls(played)),
            "tokens_written": sum(call.output_tokens for call in calls(played)),
            "questions_per_s": {
                "debates": round(len(tasks) / debates, 3),
                "raw": round(len(tasks) / raw, 3),
                "one_by_one": round(len(tasks) / sum(taken["one_by_one"]), 3),
            },
            "cpu_s": {
                "debates": round(statistics.median(cpu["debates"]), 1),
                "raw": round(statistics.median(cpu["raw"]), 1),
                "one_by_one": round(sum(cpu["one_by_one"]), 1),
            },
            "replies_equal_to_one_by_one": round(sum(equal) / len(equal), 4),
            "parts": len(parts),
            "base": BASE,
        }
        yield figure("debate_vs_sequential", sum(taken["one_by_one"]) / debates, ">=", 6.0, detail)
        pairs = [b / a for a, b in zip(taken["debates"], taken["raw"], strict=True)]
        yield figure("debate_vs_raw_ceiling", raw / debates, ">=", 0.7, {
            "questions_per_s": detail["questions_per_s"], "cpu_ratio": round(statistics.median(cpu["raw"]) /
            statistics.median(cpu["debates"]), 3), "each_part": [round(pair, 3) for pair in pairs]})  # fmt: skip

    def _timed(
        self, name: str, run: Callable[[], Any], taken: dict[str, list[float]], cpu: dict[str, list[float]]
    ) -> Any:
        self.engine._worker.do(self.engine._worker.batch.forget)  # or a later arm would know the prompts
        begin, busy = time.perf_counter(), time.process_time()
        result = run()
        taken[name].append(time.perf_counter() - begin)
        cpu[name].append(time.process_time() - busy)
        return result

    def _debates(self, tasks: Sequence[Task], run: str) -> list[Debate]:
        return run_debates(
            tasks,
            generators=self.generators,
            critics=self.critics,
            summariser=self.noter,
            settings=self.settings,
            traces=self.traces,
            run=run,
        )

    def _one_by_one(self, tasks: Sequence[Task]) -> list[Played]:
        return [self._alone(task) for task in tasks]

    def _alone(self, task: Task) -> Played:
        story = play(self.rules, task.prompt)
        asked = next(story)
        while True:
            try:
                asked = story.send([self._call(each) for each in asked])
            except StopIteration as stop:
                played: Played = stop.value
                return played

    def _call(self, asked: Asked) -> Answered:
        model = self.seats.of_node(asked.role, asked.agent)
        reply = model.invoke([to_langchain(message) for message in asked.messages], seed=asked.seed)
        return answered(reply, seconds=0.0)

    def _asked(self, debates: Sequence[Debate]) -> list[list[Any]]:
        """Return what a batch of debates asked the engine: prompts, adapters and sampling, by phase."""
        found: dict[tuple[int, int], list[Any]] = {}
        for debate in debates:
            for call in (*debate.turns, *debate.summaries):
                model: Any = self.seats.of_node(call.role, call.agent)
                seed = self.rules.seed_of(debate.task.prompt, call.node, call.round)
                made = model._prepared([to_chat_dict(message) for message in call.messages], None, {"seed": seed})
                place = (call.round, call.role != "summary")
                found.setdefault(place, []).append((made.prompt, made.adapter, made.sampling))
        return [found[place] for place in sorted(found)]

    def _raw(self, asked: Sequence[Sequence[Any]]) -> None:
        """Submit each phase's prompts, already encoded, and wait for the same replies as tokens."""
        for phase in asked:
            pending: list[Pending] = [self.engine.submit(prompt, adapter=key, sampling=drawn)
                                      for prompt, key, drawn in phase]  # fmt: skip
            for each in pending:
                each.result()


def calls(debates: Sequence[Debate]) -> Iterator[Any]:
    """Yield every call of some debates."""
    for debate in debates:
        yield from (*debate.turns, *debate.summaries)


def questions(count: int) -> list[Task]:
    """Make questions as those of Multiagent Debate."""
    rng = random.Random("bench")
    made = []
    for i in range(count):
        a, b, c, d, e, f = (rng.randint(0, 29) for _ in range(6))
        made.append(Task(id=str(i), prompt=f"What is the result of {a}+{b}*{c}+{d}-{e}*{f}?"))
    return made


def _memory(folder: Path) -> dict[str, Any]:
    """Weigh six agents over one base, each measurement in a process of its own."""
    detail: dict[str, Any] = {}
    bases = {"random": random_llama(folder / "random", SHAPE), BASE: folder / BASE}
    for name, base in bases.items():
        say(f"weighing six agents of {name}")
        random_adapters(base, folder / f"weighed-{name}", 2 * AGENTS)
        held = {count: _weigh(base, folder / f"weighed-{name}", count) for count in (0, 2 * AGENTS)}
        alone, six = held[0], held[2 * AGENTS]
        detail[name] = {
            "ratio": round(six["weights"] / alone["weights"], 3),
            "base_mib": round(alone["weights"] / MiB, 2),
            "six_agents_mib": round(six["weights"] / MiB, 2),
            "process_ratio": round(six["resident"] / alone["resident"], 3),
            "process_grew_mib": round((six["resident"] - alone["resident"]) / MiB, 1),
            "six_copies_of_the_base": 6.0,
        }
    note = (
        "an adapter of rank r costs 2r/d of a layer that is d wide: random is 640 wide, as small models for use are, "
        "abacus 128"
    )
    return figure("memory_6_agents_ratio", detail["random"]["ratio"], "<=", 1.3, detail | {"rank": 16, "note": note})


WEIGH = """
import json, sys, psutil
from cmat_graph.adapters import AdapterRegistry
from cmat_graph.models.chat_model import TinyAgent
base, adapters, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
cards = AdapterRegistry(adapters).list()[:count]
agents = [TinyAgent.load(card, dtype="float32") for card in cards] or [TinyAgent.load(base, dtype="float32")]
waiting = [agent.begin([{"role": "user", "content": "What is 1+1?"}], max_tokens=4) for agent in agents]
[wait() for wait in waiting]
batch = agents[0].engine._worker.batch
weights = sum(weight.numel() * weight.element_size() for weight in batch._model.parameters()) + batch._mixer.bytes
print(json.dumps({"weights": weights, "resident": psutil.Process().memory_info().rss}))
"""


def _weigh(base: Path, adapters: Path, count: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", WEIGH, str(base), str(adapters), str(count)], capture_output=True, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told
