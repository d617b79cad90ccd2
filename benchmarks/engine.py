"""What the engine gives beside raw transformers, PEFT and `ChatHuggingFace` with the same weights.

Two models: `random`, a Llama of 30 million random weights, and TinyAgent-nano (1.9 million). A figure's value is that
of `random`, nano is in its detail; only the swaps are nano's. All arms go in turns, with the same prompts, which are
new in every round (nothing is known of them from an earlier one), and the same number of new tokens: replies never
end by themselves. Adapters are LoRA of rank 16 on all linear layers. Figures are medians; the processor's seconds
stand beside those of the clock, because other programs may be at work too.

Nothing here sets the number of threads: all arms have torch's own (`OMP_NUM_THREADS` changes it), and wait without
spinning, as the engine does where it is imported before torch.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers.utils import logging as transformers_logging

from cmat_graph.models.decoding.rows import Reply
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine, EngineSettings

from ._contender import contender
from ._lone import Lone, invoke
from ._shared import figure, say
from ._weights import SHAPE, endless_nano, random_adapters, random_llama, tasks

ROUNDS = 3
NEW, LEAST, MOST = 64, 40, 120
BATCH, MIXED, ADAPTERS = 32, 12, 6
WARM, ASKED_ONE_BY_ONE = 4, 4
"""Requests of the round that warms up; and `ChatHuggingFace`'s, whose tokens a second a few give as well as many."""
QUESTION, ROLE, OPENING = 400, 20, 8
CALLS, CALLERS, VERSIONS, SHORT = 1_000, 16, 6, 16
QUIET, BUSY = 5, 15
"""Swaps that are timed: without calls, and with calls of the same name under way."""
EXACT = 1e-4
"""Logarithms of probabilities this close are the lone model's."""
MiB = 1 << 20
GPU_SHAPES = {
    "0.6b": {"hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072, "num_attention_heads": 16,
             "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936},
    "1.8b": {"hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 5504, "num_attention_heads": 16,
             "vocab_size": 151_936},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008, "num_attention_heads": 32,
           "vocab_size": 32_016},
}  # fmt: skip
"""Qwen3-0.6B, Qwen-1.8B and CodeLlama-7B."""


class Asked(NamedTuple):
    """What one round asks."""

    texts: list[str]
    prompts: list[list[int]]


@dataclass(slots=True)
class Taken:
    """Seconds of each turn, by the clock and by the processor."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median turn."""
        return statistics.median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        """The median turn's processor time."""
        return statistics.median(self.cpu)


class Arena:
    """One base with six adapters, twice: in the engine and in the libraries below it."""

    def __init__(self, name: str, base: Path, root: Path) -> None:
        self.name = name
        self.cards = random_adapters(base, root, ADAPTERS)
        free = _resident()
        self.engine = Engine(str(base), dtype="float32", device="cpu")
        with_base = _resident()
        self.keys = [self.engine.load_adapter(card) for card in self.cards]
        self.resident_mib = {"base": (with_base - free) / MiB, "adapters": (_resident() - with_base) / MiB}
        self.lone = Lone(base, self.cards)
        self.asked = cache(self._asked)

    def _asked(self, count: int, round_: int, purpose: str) -> Asked:
        count = min(count, WARM) if round_ < 0 else count
        lengths = [LEAST + (MOST - LEAST) * i // max(1, count - 1) for i in range(count)]
        lengths = lengths[round_ % count :] + lengths[: round_ % count]
        texts = tasks(self.engine.tokenizer, lengths, f"{purpose}:{round_}")
        return Asked(texts, [self.encode(text) for text in texts])

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a task as a chat."""
        return self.engine.encode([{"role": "user", "content": text}])

    def ask(self, prompts: Sequence[list[int]], over: int, tokens: int | None = None) -> list[Reply]:
        """Have the engine answer all of them at once, over so many adapters; over none by the bare base."""
        tokens = tokens or NEW
        adapters = [self.keys[i % over] if over else "" for i in range(len(prompts))]
        sampling = Sampling(max_tokens=tokens)
        pending = [
            self.engine.submit(prompt, adapter=adapter, sampling=sampling)
            for prompt, adapter in zip(prompts, adapters, strict=True)
        ]
        replies = [each.result() for each in pending]
        if any(reply.output_tokens != tokens for reply in replies):
            raise AssertionError("a reply ended early: the arms would not be alike")
        return replies

    def first_token(self, prompt: list[int], adapter: str = "") -> float:
        """Return the seconds until a reply's first piece of text; the reply is then read to its end."""
        start = time.perf_counter()
        pending = self.engine.submit(prompt, adapter=adapter, sampling=Sampling(max_tokens=OPENING), stream=True)
        pieces = pending.pieces()
        next(pieces)
        taken = time.perf_counter() - start
        for _ in pieces:
            pass
        return taken


def measure(size: int = ROUNDS) -> Iterator[dict[str, Any]]:
    """Yield the figures; `size` is the number of rounds, and scales the calls during swaps."""
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="cmat-bench-") as scratch:
        folder = Path(scratch)
        say("making the models and their adapters")
        bases = {"random": random_llama(folder / "random", SHAPE), "nano": endless_nano(folder / "nano")}
        arenas = [Arena(name, base, folder / f"adapters-{name}") for name, base in bases.items()]
        try:
            yield from _throughput(arenas, size)
            yield from _mixed(arenas, size)
            yield _single(arenas, size)
            yield _prefixes(arenas, size)
            yield _memory(arenas)
            yield _contended(arenas, size)
            yield from _swaps(arenas[-1], folder / "versions", CALLS * size // ROUNDS)
        finally:
            for arena in arenas:
                arena.engine.close()
        del arenas
    yield from on_gpu()


def _throughput(arenas: Sequence[Arena], rounds: int) -> Iterator[dict[str, Any]]:
    """32 requests over 3 adapters at once, against the same ones one by one, and in one batch without adapters."""
    told, others = {}, {}
    one_by_one = ("chathuggingface", "chathuggingface_one_adapter")
    for arena in arenas:
        say(f"{BATCH} requests over 3 adapters on {arena.name}")
        taken = turns(
            {
                "engine": lambda i, a=arena: a.ask(a.asked(BATCH, i, "batch").prompts, 3),
                "raw_batch": lambda i, a=arena: a.lone.batch(a.asked(BATCH, i, "batch").prompts, NEW),
                "chathuggingface": _one_by_one(arena, arena.lone.chat(NEW)),
            },
            rounds,
        )
        told[arena.name] = rates(taken, {name: _tokens(name in one_by_one) for name in taken})
        say("  and what else there is")
        taken = turns(
            {
                "engine_without_adapters": lambda i, a=arena: a.ask(a.asked(BATCH, i, "bare").prompts, 0),
                "transformers_continuous_batching": lambda i, a=arena: a.lone.continuous(
                    a.asked(BATCH, i, "bare").prompts, NEW
                ),
                "chathuggingface_one_adapter": _one_by_one(arena, arena.lone.chat(NEW, tuned=True)),
            },
            max(1, rounds // 3),
        )
        others[arena.name] = rates(taken, {name: _tokens(name in one_by_one) for name in taken})
    common = {"requests": BATCH, "new_tokens": NEW, "prompt_tokens": f"{LEAST}-{MOST}", "adapters": 3, "rounds": rounds}
    yield versus("tokens_per_s_vs_chathuggingface", told, "engine", "chathuggingface", ">=", 8.0, common | {
        "raw_batch_vs_chathuggingface": {
            name: ratio(rate, "raw_batch", "chathuggingface") for name, rate in told.items()
        },
        "chathuggingface_answers_without_adapters": True})  # fmt: skip
    yield versus("tokens_per_s_vs_raw_batch", told, "engine", "raw_batch", ">=", 0.85, common | {
        "without_adapters_vs_continuous_batching_of_transformers": {
            name: ratio(rate, "engine_without_adapters", "transformers_continuous_batching")
            for name, rate in others.items()
        },
        "other_arms": others})  # fmt: skip


def _one_by_one(arena: Arena, chat: Any) -> Callable[[int], None]:
    """Return how `ChatHuggingFace` answers some of a round's requests."""

    def run(i: int) -> None:
        texts = arena.asked(BATCH, i, "batch").texts
        for text in texts[:: max(1, len(texts) // ASKED_ONE_BY_ONE)][:ASKED_ONE_BY_ONE]:
            invoke(chat, text)

    return run


def _tokens(is_one_by_one: bool) -> int:
    return NEW * (ASKED_ONE_BY_ONE if is_one_by_one else BATCH)


def _mixed(arenas: Sequence[Arena], rounds: int) -> Iterator[dict[str, Any]]:
    """12 requests over 6 adapters: PEFT's mixed batch, and the same batch with one adapter."""
    told, equal = {}, {}
    for arena in arenas:
        say(f"{MIXED} requests over {ADAPTERS} adapters on {arena.name}")
        replies: dict[str, dict[int, list[list[int]]]] = {"engine": {}, "peft_mixed": {}}

        def asked(i: int, arena: Arena = arena) -> list[list[int]]:
            return arena.asked(MIXED, i, "mixed").prompts

        def engine(i: int, arena: Arena = arena, got: Any = replies["engine"]) -> None:
            got[i] = [reply.tokens for reply in arena.ask(asked(i, arena), ADAPTERS)]

        def peft(i: int, arena: Arena = arena, got: Any = replies["peft_mixed"]) -> None:
            prompts = asked(i, arena)
            got[i] = arena.lone.batch(prompts, NEW, [place % ADAPTERS for place in range(len(prompts))])

        taken = turns(
            {
                "engine": engine,
                "peft_mixed": peft,
                "engine_one_adapter": lambda i, a=arena: a.ask(asked(i, a), 1),
            },
            rounds,
        )
        told[arena.name] = rates(taken, dict.fromkeys(taken, MIXED * NEW))
        pairs = [
            (ours, theirs)
            for i, batch in replies["engine"].items()
            for ours, theirs in zip(batch, replies["peft_mixed"][i], strict=True)
        ]
        equal[arena.name] = sum(ours == theirs for ours, theirs in pairs) / len(pairs)
    common = {"requests": MIXED, "new_tokens": NEW, "adapters": ADAPTERS, "rounds": rounds}
    yield versus("mixed_vs_peft_mixed", told, "engine", "peft_mixed", ">=", 2.2, common)
    yield versus("mixed_vs_single_adapter", told, "engine", "engine_one_adapter", ">=", 0.85, common)
    yield figure("mixed_equal_to_peft", min(equal.values()), ">=", 1.0, common | {
        "share_of_token_identical_replies": equal, "replies_of_each": MIXED * rounds + WARM})  # fmt: skip


def _single(arenas: Sequence[Arena], rounds: int) -> dict[str, Any]:
    """One request alone against raw generate; the time, so that less is better."""
    told = {}
    for arena in arenas:
        say(f"one request on {arena.name}")
        taken = turns(
            {
                "engine": lambda i, a=arena: a.ask(a.asked(1, i, "single").prompts, 0),
                "raw_generate": lambda i, a=arena: a.lone.batch(a.asked(1, i, "single").prompts, NEW),
            },
            2 * rounds,
        )
        told[arena.name] = rates(taken, dict.fromkeys(taken, NEW))
    common = {"new_tokens": NEW, "prompt_tokens": LEAST, "rounds": 2 * rounds}
    return versus("single_vs_raw", told, "raw_generate", "engine", "<=", 1.1, common)


def _prefixes(arenas: Sequence[Arena], rounds: int) -> dict[str, Any]:
    """Three agents with one question, one after another: the later ones' first token against the first one's."""
    detail: dict[str, Any] = {}
    for arena in arenas:
        say(f"a debate on {arena.name}")
        alone: dict[str, list[list[float]]] = {"one_adapter": [], "three_adapters": [], "no_adapter": []}
        together = []
        for i in range(-1, 2 * rounds):
            for kind, seen in alone.items():
                keys = {"one_adapter": arena.keys[:1] * 3, "three_adapters": arena.keys[:3]}.get(kind, [""] * 3)
                prompts = _debate(arena, f"{kind}:{i}")
                taken = [arena.first_token(prompt, key) for prompt, key in zip(prompts, keys, strict=True)]
                if i >= 0:
                    seen.append(taken)
            prompts = _debate(arena, f"together:{i}")
            with ThreadPoolExecutor(3) as pool:
                together.append(sorted(pool.map(arena.first_token, prompts)))
        middle = {kind: [statistics.median(times) for times in zip(*seen, strict=True)] for kind, seen in alone.items()}
        detail[arena.name] = {
            "ratio": later(middle["no_adapter"]),
            "ok": later(middle["no_adapter"]) <= 0.4,
            "ratio_with_one_adapter": later(middle["one_adapter"]),
            "ratio_with_three_adapters": later(middle["three_adapters"]),
            "first_token_ms": {kind: [ms(each) for each in times] for kind, times in middle.items()},
            "first_token_ms_asked_at_once": [
                ms(statistics.median(times)) for times in zip(*together[1:], strict=True)
            ],
            "prompt_tokens": len(prompts[0]),
        }  # fmt: skip
    return figure("prefix_ttft_ratio", detail[arenas[0].name]["ratio"], "<=", 0.4, detail | {
        "question_tokens": QUESTION, "rounds": 2 * rounds, "note": "keys and values depend on the adapter, so three "
        "agents with three adapters share none of them, which exactness does not allow"})  # fmt: skip


def _debate(arena: Arena, seed: str) -> list[list[int]]:
    """Return the prompts of three agents: one question, then what each is to do with it."""
    question, *roles = tasks(arena.engine.tokenizer, [QUESTION, ROLE, ROLE, ROLE], f"debate:{seed}")
    return [arena.encode(f"{question}\nYou are agent {i}. {role}") for i, role in enumerate(roles, 1)]


def later(times: Sequence[float]) -> float:
    """Return the slower of the later agents' seconds over the first one's."""
    return round(max(times[1:]) / times[0], 3)


def _memory(arenas: Sequence[Arena]) -> dict[str, Any]:
    """The base with six adapters over the base alone, as the engine holds them."""
    detail: dict[str, Any] = {}
    for arena in arenas:
        batch = arena.engine._worker.batch
        base = sum(weight.numel() * weight.element_size() for weight in batch._model.parameters())
        banks = batch._mixer.bytes
        detail[arena.name] = {
            "ratio": round((base + banks) / base, 3),
            "ok": (base + banks) / base <= 1.25,
            "base_mib": round(base / MiB, 2),
            "adapters_mib": round(banks / MiB, 2),
            "adapters_bytes_in_their_files": round(sum(each.bytes for each in arena.engine.adapters()) / MiB, 2),
            "process_grew_mib": {name: round(value, 1) for name, value in arena.resident_mib.items()},
        }
    ratio_ = detail[arenas[0].name]["ratio"]
    return figure("memory_6_adapters_ratio", ratio_, "<=", 1.25, detail | {"rank": 16, "layers": "all linear"})


def _contended(arenas: Sequence[Arena], rounds: int) -> dict[str, Any]:
    """The same work with another program multiplying matrices on all cores, and on one, against a quiet machine."""
    detail: dict[str, Any] = {}
    with contender() as everywhere, contender(1) as one_core:
        for arena in arenas:
            say(f"beside a busy process on {arena.name}")

            def work(i: int, arena: Arena = arena) -> None:
                arena.ask(arena.asked(MIXED, i, "contended").prompts, 3, NEW // 2)

            def beside(other: Any, i: int, work: Callable[[int], None] = work) -> float:
                with other.working():
                    start = time.perf_counter()
                    work(i)
                    return time.perf_counter() - start

            work(-1)
            seen: dict[str, list[float]] = {"quiet": [], "beside_all_cores_busy": [], "beside_one_core_busy": []}
            for i in range(rounds):
                seen["quiet"].append(_timed(lambda i=i, work=work: work(i)))
                seen["beside_all_cores_busy"].append(beside(everywhere, i + rounds))
                seen["beside_one_core_busy"].append(beside(one_core, i + 2 * rounds))
            speed = {name: round(MIXED * (NEW // 2) / statistics.median(times), 1) for name, times in seen.items()}
            worst = min(speed["beside_all_cores_busy"], speed["beside_one_core_busy"]) / speed["quiet"]
            detail[arena.name] = {"ratio": round(worst, 3), "ok": worst >= 0.4, "tokens_per_s": speed}
        detail["the_other_had_cores"] = {"all": round(everywhere.cores, 2), "one": round(one_core.cores, 2)}
    detail |= {"threads": torch.get_num_threads(), "cores": psutil.cpu_count(), "rounds": rounds}
    return figure("contended_vs_quiet", detail[arenas[0].name]["ratio"], ">=", 0.4, detail)


def _swaps(arena: Arena, root: Path, calls: int) -> Iterator[dict[str, Any]]:
    """Swap the versions of an adapter while many threads call it: how long that takes, and whose replies they get."""
    say(f"swapping an adapter of {arena.name} that is in use")
    prompts = arena.asked(CALLERS, 0, "swaps").prompts
    yield _swap_times(arena, random_adapters(arena.lone.base, root / "fresh", QUIET + BUSY, name="agent"), prompts)
    versions = random_adapters(arena.lone.base, root / "known", VERSIONS, name="agent", seed=100)
    lone = Lone(arena.lone.base, versions)
    expected = {
        (i, version): lone.scored(prompt, SHORT, version)
        for i, prompt in enumerate(prompts)
        for version in range(VERSIONS)
    }
    say(f"the lone model's replies are known; {calls:,} calls of {arena.name} while versions are swapped")
    traffic = Traffic(arena, versions, prompts, calls)
    traffic.run()
    wrong, furthest = traffic.judge(expected)
    detail = {
        "model": arena.name,
        "calls": len(traffic.calls),
        "callers": CALLERS,
        "swaps_meanwhile": len(traffic.swaps) - 1,
        "versions_that_answered": len({call.version for call in traffic.calls}),
        "largest_difference_of_logprobs": furthest,
        "allowed": EXACT,
        "from_the_prefix_cache": sum(call.reply.cached_tokens > 0 for call in traffic.calls),
    }
    yield figure("swap_wrong_outputs", wrong, "<=", 0, detail)


def _swap_times(arena: Arena, fresh: Sequence[Any], prompts: Sequence[list[int]]) -> dict[str, Any]:
    """Time loading versions never seen before under one name: first without, then with calls of it under way."""
    over = threading.Event()

    def swap(card: Any) -> float:
        return _timed(lambda: arena.engine.load_adapter(card, name="agent"))

    def calling(prompt: list[int]) -> None:
        while not over.is_set():
            arena.engine.submit(prompt, adapter="agent", sampling=Sampling(max_tokens=SHORT)).result()

    quiet = [swap(card) for card in fresh[:QUIET]]
    busy = []
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(calling, prompt) for prompt in prompts]
        try:
            for card in fresh[QUIET:]:
                time.sleep(0.1)
                busy.append(swap(card))
        finally:
            over.set()
        for caller in callers:
            caller.result()
    detail = {
        "model": arena.name,
        "swaps": len(busy),
        "requests_under_way": CALLERS,
        "p95_ms": ms(sorted(busy)[int(0.95 * len(busy))]),
        "longest_ms": ms(max(busy)),
        "without_calls_ms": ms(statistics.median(quiet)),
    }
    return figure("swap_ms", statistics.median(busy) * 1e3, "<=", 50.0, detail)


@dataclass(frozen=True, slots=True)
class Swap:
    """A version took over the name at some moment between these two."""

    version: int
    begin: float
    end: float


@dataclass(slots=True)
class Call:
    """One call under the name, and which version's reply it turned out to be."""

    prompt: int
    begin: float
    sent: float
    reply: Reply
    version: int | None = None


class Traffic:
    """Threads that call one name while its versions are swapped."""

    def __init__(self, arena: Arena, versions: Sequence[Any], prompts: Sequence[list[int]], calls: int) -> None:
        self.swaps: list[Swap] = []
        self.calls: list[Call] = []
        self._arena, self._versions, self._prompts, self._count = arena, versions, prompts, calls

    def swap(self, version: int) -> None:
        """Let the name mean a version from now on."""
        begin = time.perf_counter()
        self._arena.engine.load_adapter(self._versions[version], name="agent")
        self.swaps.append(Swap(version, begin, time.perf_counter()))

    def run(self) -> None:
        """Make all calls, swapping until the last has come back."""
        over = threading.Event()
        self.swap(0)

        def swapping() -> None:
            turn = 1
            while not over.wait(0.05):
                self.swap(turn % VERSIONS)
                turn += 1

        swapper = threading.Thread(target=swapping)
        swapper.start()
        try:
            with ThreadPoolExecutor(CALLERS) as pool:
                self.calls = list(pool.map(self._call, range(self._count)))
        finally:
            over.set()
            swapper.join()

    def _call(self, number: int) -> Call:
        prompt = number % len(self._prompts)
        begin = time.perf_counter()
        pending = self._arena.engine.submit(self._prompts[prompt], adapter="agent", sampling=Sampling(max_tokens=SHORT))
        return Call(prompt, begin, time.perf_counter(), pending.result())

    def judge(self, expected: dict[tuple[int, int], tuple[list[int], list[float]]]) -> tuple[int, float]:
        """Count the replies that no version current while they were submitted gives alone."""
        wrong, furthest = 0, 0.0
        for call in self.calls:
            near = {
                version: max(map(abs, map(float.__sub__, expected[call.prompt, version][1], call.reply.logprobs)))
                for version in self._current(call)
                if expected[call.prompt, version][0] == call.reply.tokens
            }
            call.version = min(near, key=near.__getitem__, default=None)
            apart = near[call.version] if call.version is not None else 0.0
            wrong += call.version is None or apart > EXACT
            furthest = max(furthest, apart)
        return wrong, furthest

    def _current(self, call: Call) -> set[int]:
        ends = [swap.end for swap in self.swaps[1:]] + [float("inf")]
        return {
            swap.version
            for swap, end in zip(self.swaps, ends, strict=True)
            if swap.begin <= call.sent and end >= call.begin
        }


def on_gpu(shapes: dict[str, dict[str, Any]] = GPU_SHAPES, device: str = "cuda") -> Iterator[dict[str, Any]]:
    """Yield tokens a second of larger shapes in bfloat16, beside what the memory's bandwidth allows.

    Each step reads all weights once, and every row's keys and values: that is the limit. The issue sets no target.
    """
    if device == "cuda" and not torch.cuda.is_available():
        say("no GPU here: the figures of the 0.6B, 1.8B and 7B shapes are left out")
        return
    bandwidth = _bandwidth(device)
    for name, shape in shapes.items():
        with tempfile.TemporaryDirectory(prefix="cmat-bench-") as scratch:
            say(f"a random {name} on the GPU; its memory moves {bandwidth / 1e9:,.0f} GB/s")
            full = {"max_position_embeddings": 4096, "tie_word_embeddings": False} | shape
            base = random_llama(Path(scratch) / "base", full, dtype="bfloat16", device=device)
            settings = EngineSettings(max_rows=128, cache_bytes=16 << 30)
            engine = Engine(str(base), dtype="bfloat16", device=device, settings=settings)
        weights = sum(weight.numel() * weight.element_size() for weight in engine._worker.batch._model.parameters())
        speed, limit = {}, {}
        for rows in (1, 32, 128):
            cached = rows * (MOST + NEW) * engine._worker._column_bytes
            limit[rows] = rows * bandwidth / (weights + cached)
            speed[rows] = _decoded(engine, rows)
            say(f"{name}, batch {rows}: {speed[rows]:,.0f} tokens/s; the bandwidth allows {limit[rows]:,.0f}")
        detail = {
            "tokens_per_s": {str(rows): round(value, 1) for rows, value in speed.items()},
            "bandwidth_limit_tokens_per_s": {str(rows): round(value, 1) for rows, value in limit.items()},
            "weights_gib": round(weights / (1 << 30), 2),
            "bandwidth_gb_per_s": round(bandwidth / 1e9),
            "device": torch.cuda.get_device_name() if device == "cuda" else device,
            "new_tokens": NEW,
        }
        yield figure(f"gpu_{name}_share_of_bandwidth", speed[1] / limit[1], ">=", 0.0, detail)
        engine.close()
        del engine
        gc.collect()
        torch.cuda.empty_cache()


def _decoded(engine: Engine, rows: int, rounds: int = 3) -> float:
    """Return the median tokens a second of so many requests, their prompts included."""
    times = []
    for i in range(-1, rounds):
        texts = tasks(engine.tokenizer, [MOST] * rows, f"gpu:{rows}:{i}")
        prompts = [engine.encode([{"role": "user", "content": text}]) for text in texts]

        def answer(prompts: Sequence[list[int]] = prompts) -> None:
            pending = [engine.submit(prompt, sampling=Sampling(max_tokens=NEW)) for prompt in prompts]
            assert all(each.result().output_tokens == NEW for each in pending)

        times.append(_timed(answer))
    return rows * NEW / statistics.median(times[1:])


def _bandwidth(device: str) -> float:
    """Return the bytes a second that a large copy moves, read and written."""
    source = torch.empty((4 << 30) if device == "cuda" else (64 << 20), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() / best


def turns(runs: dict[str, Callable[[int], object]], rounds: int) -> dict[str, Taken]:
    """Run each in turn, in each round beginning with another; the first round only warms up."""
    taken = {name: Taken() for name in runs}
    names = list(runs)
    for i in range(-1, rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect(0)
            begin, cpu = time.perf_counter(), time.process_time()
            runs[name](i)
            if i >= 0:
                taken[name].wall.append(time.perf_counter() - begin)
                taken[name].cpu.append(time.process_time() - cpu)
        said = "warm" if i < 0 else f"round {i + 1} of {rounds}"
        if i < 0 or taken[names[0]].seconds > 0.5:
            say(f"  {said}")
    return taken


def rates(taken: dict[str, Taken], tokens: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return tokens a second, by the clock and by the processor."""
    return {
        name: {
            "tokens_per_s": round(tokens[name] / each.seconds, 1),
            "tokens_per_cpu_s": round(tokens[name] / each.cpu_seconds, 1),
        }
        for name, each in taken.items()
    }


def ratio(rate: dict[str, dict[str, float]], one: str, other: str, kind: str = "tokens_per_s") -> float:
    """Return how many times as fast one arm is as another."""
    return round(rate[one][kind] / rate[other][kind], 3)


def versus(
    metric: str, told: dict[str, Any], one: str, other: str, sign: str, bound: float, common: dict[str, Any]
) -> dict[str, Any]:
    """Word a figure that is one arm over another, of both models."""
    detail: dict[str, Any] = {}
    for name, rate in told.items():
        value = ratio(rate, one, other)
        ok = value <= bound if sign == "<=" else value >= bound
        by_cpu = ratio(rate, one, other, "tokens_per_cpu_s")
        detail[name] = {"ratio": value, "ok": ok, "ratio_by_cpu_time": by_cpu, "arms": rate}
    value = detail[next(iter(told))]["ratio"]
    return figure(metric, value, sign, bound, detail | common | {"threads": torch.get_num_threads()})


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def ms(taken: float) -> float:
    """Return seconds as milliseconds, short."""
    return round(taken * 1e3, 2)
