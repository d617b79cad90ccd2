"""Memory runs out, numbers overflow, a forward fails: the request it concerns fails, the others do not notice."""

from __future__ import annotations

import time

import pytest
import torch
from random_weights import Lone, make_adapter

from cmat_graph.errors import ConfigurationError, EngineError
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.engine import Engine

GREEDY = Sampling(max_tokens=20)
PROMPTS = [list(range(n, 2 * n + 10)) for n in range(10, 26)]


class Scarce:
    """Let a model's forward run out of memory beyond some number of tokens times rows."""

    def __init__(self, engine, *, limit: int, error=torch.OutOfMemoryError) -> None:
        model = engine._worker.batch._model
        self.forward, self.limit, self.error, self.failed = model.forward, limit, error, 0
        model.forward = self

    def __call__(self, **given):
        if given["attention_mask"].numel() > self.limit:
            self.failed += 1
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        return self.forward(**given)


@pytest.fixture
def engine(small):
    engine = Engine(str(small))
    yield engine
    engine.close()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_a_batch_too_large_for_memory_is_split(engine, small, error):
    lone = Lone(small)
    scarce = Scarce(engine, limit=4000, error=error)  # five prompts at once, not sixteen
    pending = [engine.submit(prompt, sampling=GREEDY) for prompt in PROMPTS]
    for prompt, one in zip(PROMPTS, pending, strict=True):
        assert one.result(60).tokens == lone.generate(prompt, tokens=20)
    assert scarce.failed
    assert engine.stats.out_of_memory == scarce.failed


def test_rows_that_grow_too_large_together_take_turns(engine, small):
    lone = Lone(small)
    scarce, long = Scarce(engine, limit=2200), Sampling(max_tokens=60)
    pending = [engine.submit(PROMPTS[0] + [n], sampling=long) for n in range(32)]
    for n, one in enumerate(pending):
        assert one.result(60).tokens == lone.generate(PROMPTS[0] + [n], tokens=60)
    assert scarce.failed


def test_a_request_too_large_alone_fails_and_the_others_survive(engine, small):
    Scarce(engine, limit=5_000)
    huge = engine.submit([7, 8] * 250, sampling=GREEDY)
    others = [engine.submit(prompt, sampling=GREEDY) for prompt in PROMPTS[:6]]
    with pytest.raises(EngineError, match="out of memory for a prompt of 500 tokens alone"):
        huge.result(60)
    lone = Lone(small)
    for prompt, one in zip(PROMPTS, others, strict=False):
        assert one.result(60).tokens == lone.generate(prompt, tokens=20)


def test_memory_that_runs_out_while_a_row_joins(engine, small, monkeypatch):
    cache = engine._worker.batch.cache
    reserve, calls = cache.reserve, []

    def scarce(slots, columns):
        calls.append(slots)
        if slots > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        reserve(slots, columns)

    monkeypatch.setattr(cache, "reserve", scarce)
    pending = [engine.submit(prompt, sampling=GREEDY) for prompt in PROMPTS[:7]]
    lone = Lone(small)
    for prompt, one in zip(PROMPTS, pending, strict=False):
        assert one.result(60).tokens == lone.generate(prompt, tokens=20)
    assert max(calls) > 3


def test_numbers_that_overflow_fail_their_own_request_only(engine, small, tmp_path):
    wild = engine.load_adapter(make_adapter(small, tmp_path, "wild", seed=1, std=1e19))
    lone = Lone(small)
    pending = [
        engine.submit(prompt, adapter=wild if i % 3 == 0 else "", sampling=GREEDY) for i, prompt in enumerate(PROMPTS)
    ]
    for i, (prompt, one) in enumerate(zip(PROMPTS, pending, strict=True)):
        if i % 3 == 0:
            with pytest.raises(EngineError, match=r"not numbers.*assistant/wild"):
                one.result(60)
        else:
            assert one.result(60).tokens == lone.generate(prompt, tokens=20)
    # nothing of it is left in the slots that others get now
    again = [engine.submit(prompt, sampling=GREEDY) for prompt in PROMPTS]
    for prompt, one in zip(PROMPTS, again, strict=True):
        assert one.result(60).tokens == lone.generate(prompt, tokens=20)


def test_a_constraint_that_breaks_fails_its_own_request_only(engine, small):
    class Broken:
        def mask(self):
            raise ValueError("no such rule")

        def advance(self, token):
            raise AssertionError

    bad = engine.submit(PROMPTS[0], sampling=GREEDY._replace(constraint=Broken()))
    good = engine.submit(PROMPTS[1], sampling=GREEDY)
    with pytest.raises(EngineError, match="no such rule"):
        bad.result(60)
    assert good.result(60).tokens == Lone(small).generate(PROMPTS[1], tokens=20)


def test_a_constraint_decides_what_may_follow(engine):
    class Only:
        def __init__(self, tokens):
            self.left = list(tokens)

        def mask(self):
            allowed = torch.zeros(768, dtype=torch.bool)
            allowed[self.left[0] if self.left else 1] = True
            return allowed

        def advance(self, token):
            self.left = self.left[1:]

    reply = engine.submit(PROMPTS[0], sampling=GREEDY._replace(constraint=Only([30, 31, 32]))).result(60)
    assert (reply.tokens, reply.finish_reason) == ([30, 31, 32, 1], "stop")


def test_a_worker_whose_batch_breaks_goes_on(engine, small, monkeypatch, caplog):
    batch = engine._worker.batch
    choose = batch.next_fill

    def breaks():
        raise KeyError("a fault of ours")

    monkeypatch.setattr(batch, "next_fill", breaks)
    with pytest.raises(EngineError, match="a fault of ours"):
        engine.submit(PROMPTS[0], sampling=GREEDY).result(60)
    monkeypatch.setattr(batch, "next_fill", choose)
    assert engine.submit(PROMPTS[0], sampling=GREEDY).result(60).tokens
    assert "its requests are given up" in caplog.text


def test_memory_that_runs_out_after_the_forward_changes_no_reply(engine, small, monkeypatch):
    from cmat_graph.models.decoding import batch

    drawing, calls = batch.draw, []

    def scarce(logits, rows):
        calls.append(len(rows))
        if len(calls) in (2, 5, 9):
            raise torch.OutOfMemoryError("out of memory")
        return drawing(logits, rows)

    hot = Sampling(max_tokens=20, temperature=1.0, seed=3)
    expected = [engine.submit(prompt, sampling=hot).result(60).tokens for prompt in PROMPTS[:5]]
    monkeypatch.setattr(batch, "draw", scarce)
    pending = [engine.submit(prompt, sampling=hot) for prompt in PROMPTS[:5]]
    assert [one.result(60).tokens for one in pending] == expected
    assert len(calls) > 9


def test_memory_that_runs_out_while_a_cache_grows_or_is_kept(engine, small, monkeypatch):
    cache, lone = engine._worker.batch.cache, Lone(small)
    grown, calls = cache._grown, []

    def scarce(old, slots, columns):
        calls.append(columns)
        if len(calls) in (3, 8):
            raise MemoryError
        return grown(old, slots, columns)

    def never(slot, columns):
        raise MemoryError

    monkeypatch.setattr(cache, "_grown", scarce)
    monkeypatch.setattr(cache, "save", never)
    pending = [engine.submit(prompt, sampling=Sampling(max_tokens=90)) for prompt in PROMPTS[:4]]
    for prompt, one in zip(PROMPTS, pending, strict=False):
        assert one.result(60).tokens == lone.generate(prompt, tokens=90)
    assert len(calls) > 8


@pytest.mark.parametrize("token", [-1, 768, 2**31 - 1])
def test_tokens_that_are_none_are_refused_before_they_reach_the_others(engine, token):
    with pytest.raises(ConfigurationError, match="outside 0 to 767"):
        engine.submit([5, token, 7])


@pytest.mark.parametrize(
    "setting",
    [{"temperature": float("nan")}, {"temperature": -1.0}, {"top_p": "all"}, {"repetition_penalty": 0.0},
     {"stop": (3,)}, {"top_k": 2.5}, {"max_tokens": None}, {"min_p": float("inf")}],
)  # fmt: skip
def test_settings_that_cannot_be_drawn_by_are_refused(engine, setting):
    with pytest.raises(ConfigurationError):
        engine.submit(PROMPTS[0], sampling=Sampling(**setting))


@pytest.mark.parametrize("setting", [{"temperature": 1e-30}, {"top_k": 10**30}, {"max_tokens": 10**9}, {"top_p": 0.0}])
def test_settings_at_the_edge_are_drawn_by(engine, setting):
    given = {"max_tokens": 5, "temperature": 1.0, "seed": 1} | setting
    assert engine.submit(PROMPTS[0], sampling=Sampling(**given)).result(60).tokens


def test_a_request_ends_although_nobody_holds_its_engine(small):
    import gc

    pending = Engine(str(small)).submit(PROMPTS[0], sampling=GREEDY)
    gc.collect()
    assert pending.result(60).tokens


def test_a_reply_that_cannot_be_read_fails_and_does_not_hang(engine, monkeypatch):
    monkeypatch.setattr(engine, "_read", lambda row: 1 / 0)
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        engine.submit(PROMPTS[0], sampling=GREEDY).result(60)


def test_a_row_given_up_while_its_numbers_are_wrong_spoils_nobody(engine, small, tmp_path):
    wild, lone = engine.load_adapter(make_adapter(small, tmp_path, "wild", seed=1, std=1e19)), Lone(small)
    engine._worker.batch.piece = 8  # so that it is given up while its prompt is read
    for n in range(6):
        engine.submit(list(range(5, 605)), adapter=wild, sampling=GREEDY).cancel()
        pending = [engine.submit(prompt, sampling=GREEDY) for prompt in PROMPTS[: n + 1]]
        for prompt, one in zip(PROMPTS, pending, strict=False):
            assert one.result(60).tokens == lone.generate(prompt, tokens=20)


def test_a_constraint_that_allows_nothing_is_an_error_and_no_text(engine):
    class Nothing:
        def mask(self):
            return torch.zeros(768, dtype=torch.bool)

        def advance(self, token):
            pass

    bad = engine.submit(PROMPTS[0], sampling=GREEDY._replace(constraint=Nothing()))
    with pytest.raises(EngineError, match="allows no token"):
        bad.result(60)


def test_after_a_while_as_many_rows_as_before_are_tried_again(engine, monkeypatch):
    from cmat_graph.models.decoding import worker

    monkeypatch.setattr(worker, "PATIENCE", 8)
    engine._worker._row_limit = engine._worker.batch.fill_rows = 4
    pending = [engine.submit(PROMPTS[0] + [n], sampling=Sampling(max_tokens=100)) for n in range(40)]
    seen = 0
    while not pending[-1].future.done():
        seen = max(seen, len(engine._worker.batch.rows))
        time.sleep(0.002)
    assert seen > 8
