"""What a caller may ask of an engine, and what it gets when it asks too much."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_weights import Lone, make_base

from cmat_graph.errors import (
    AdapterNotFoundError,
    ConfigurationError,
    EngineBusyError,
    EngineError,
    PromptTooLongError,
)
from cmat_graph.models.decoding.sampling import Sampling
from cmat_graph.models.decoding.text import Text
from cmat_graph.models.engine import Engine, EngineSettings, shared_engine

PROMPT = list(range(10, 40))


@pytest.fixture(scope="module")
def engine(small):
    engine = Engine(str(small), settings=EngineSettings(max_rows=8))
    yield engine
    engine.close()


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch(engine):
    hot = Sampling(max_tokens=30, temperature=1.2, top_p=0.95, top_k=50, min_p=0.01, seed=7)
    alone = engine.submit(PROMPT, sampling=hot).result(60).tokens
    others = [engine.submit(PROMPT[:n], sampling=hot._replace(seed=n)) for n in range(3, 12)]
    assert engine.submit(PROMPT, sampling=hot).result(60).tokens == alone
    assert len({tuple(other.result(60).tokens) for other in others}) == len(others)


def test_sampling_follows_the_models_distribution(engine):
    drawn = [engine.submit(PROMPT, sampling=Sampling(max_tokens=1, temperature=1.0, seed=i)) for i in range(600)]
    replies = [one.result(120) for one in drawn]
    # the mean of 1/p over draws from p counts the tokens there are: a check of draws and log-probabilities at once
    likely = {reply.tokens[0]: reply.logprobs[0] for reply in replies}
    token, logprob = max(likely.items(), key=lambda pair: pair[1])
    share = sum(reply.tokens[0] == token for reply in replies) / len(replies)
    expected = torch.tensor(logprob).exp().item()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / len(replies)) ** 0.5 + 1e-3


@pytest.mark.parametrize(
    ("setting", "most"), [({"top_k": 1}, 1), ({"top_p": 1e-6}, 1), ({"min_p": 1.0}, 1), ({"top_k": 3}, 3)]
)
def test_filters_leave_only_the_likely(engine, setting, most):
    drawn = [
        engine.submit(PROMPT, sampling=Sampling(max_tokens=1, temperature=3.0, seed=i, **setting)) for i in range(60)
    ]
    assert len({one.result(60).tokens[0] for one in drawn}) <= most


def test_a_repetition_penalty_makes_a_reply_less_repetitive(engine):
    plain = engine.submit(PROMPT, sampling=Sampling(max_tokens=40)).result(60).tokens
    varied = engine.submit(PROMPT, sampling=Sampling(max_tokens=40, repetition_penalty=5.0)).result(60).tokens
    assert len(set(varied)) > len(set(plain))


def test_log_probabilities_are_those_of_the_lone_model(engine, small):
    reply = engine.submit(PROMPT, sampling=Sampling(max_tokens=8)).result(60)
    whole = torch.tensor([PROMPT + reply.tokens])
    with torch.inference_mode():
        logits = Lone(small).model(whole).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    expected = [float(row[token]) for row, token in zip(logits, reply.tokens, strict=True)]
    assert reply.logprobs == pytest.approx(expected, abs=1e-4)


def test_what_streams_is_what_the_reply_says(engine):
    pending = engine.submit(PROMPT, sampling=Sampling(max_tokens=40), stream=True)
    assert "".join(pending.pieces()) == pending.result().raw

    async def stream():
        pending = await engine.asubmit(PROMPT, sampling=Sampling(max_tokens=40), stream=True)
        return "".join([piece async for piece in pending.apieces()]), await pending.aresult()

    text, reply = asyncio.run(stream())
    assert text == reply.raw == pending.result().raw


def test_a_stop_string_ends_the_reply_and_is_never_shown(engine):
    whole = engine.submit(PROMPT, sampling=Sampling(max_tokens=40)).result(60)
    mark = whole.raw[10:13]
    pending = engine.submit(PROMPT, sampling=Sampling(max_tokens=40, stop=(mark, "not there")), stream=True)
    pieces = list(pending.pieces())
    assert "".join(pieces) == pending.result().text == whole.raw[: whole.raw.index(mark)]
    assert pending.result().finish_reason == "stop"
    assert pending.result().output_tokens < 40


@given(st.text(min_size=1, max_size=40), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_any_text_streams_whole_and_stops_before_its_stop_strings(text, stop):
    tokenizer = shared_engine("nano").tokenizer
    reader, shown = Text(tokenizer, tuple(stop)), ""
    for token in tokenizer.encode(text, add_special_tokens=False):
        stopped = reader.add(token)
        shown += reader.take()
        if stopped:
            break
    shown += reader.take(last=True)
    decoded = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
    ends = [decoded.index(mark) for mark in stop if mark in decoded]
    assert shown == decoded[: min(ends, default=len(decoded))]


def test_a_cancelled_request_leaves_and_the_others_stay(engine):
    long = [engine.submit(PROMPT[:n], sampling=Sampling(max_tokens=400)) for n in range(4, 10)]
    long[2].cancel()
    with pytest.raises(CancelledError):
        long[2].result(60)
    for one in long[:2] + long[3:]:
        assert one.result(60).output_tokens
    assert not engine._worker.batch.rows


def test_leaving_a_stream_gives_the_request_up(engine):
    pending = engine.submit(PROMPT, sampling=Sampling(max_tokens=900, temperature=2.0, seed=1), stream=True)
    for _ in pending.pieces():
        break
    assert pending.future.cancelled()


def test_a_cancelled_task_gives_the_request_up(engine):
    async def ask():
        pending = await engine.asubmit(PROMPT, sampling=Sampling(max_tokens=900, temperature=2.0, seed=1))
        task = asyncio.create_task(pending.aresult())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pending

    assert asyncio.run(ask()).cancelled


def test_many_threads_and_loops_at_once(engine):
    expected = {n: engine.submit(PROMPT[:n], sampling=Sampling(max_tokens=12)).result(60).tokens for n in range(2, 12)}
    wrong = []

    def thread():
        for n in range(2, 12):
            if engine.submit(PROMPT[:n], sampling=Sampling(max_tokens=12)).result(60).tokens != expected[n]:
                wrong.append(n)

    async def one(n):
        pending = await engine.asubmit(PROMPT[:n], sampling=Sampling(max_tokens=12))
        if (await pending.aresult()).tokens != expected[n]:
            wrong.append(n)

    async def loop():
        await asyncio.gather(*(one(n) for n in range(2, 12)))

    threads = [threading.Thread(target=thread) for _ in range(4)]
    threads += [threading.Thread(target=lambda: asyncio.run(loop())) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_full_queue_makes_callers_wait_or_says_so(small):
    engine = Engine(str(small), settings=EngineSettings(max_rows=1, max_waiting=2))
    hot = Sampling(max_tokens=300, temperature=2.0, seed=1)
    first = [engine.submit(PROMPT, sampling=hot)]
    while engine._worker.batch.rows == []:
        time.sleep(0.001)
    first += [engine.submit(PROMPT, sampling=hot, timeout=0) for _ in range(2)]
    with pytest.raises(EngineBusyError, match="max_waiting"):
        engine.submit(PROMPT, sampling=hot, timeout=0)

    async def waits():
        pending = await engine.asubmit(PROMPT, sampling=Sampling(max_tokens=2))
        return await pending.aresult()

    assert asyncio.run(waits()).output_tokens
    assert first[0].result(60)
    engine.close()


@pytest.mark.clock
@pytest.mark.parametrize("tokens", [1024, 100_000])
def test_a_prompt_past_the_window_is_refused_at_once(engine, tokens):
    start = time.perf_counter()
    with pytest.raises(PromptTooLongError, match=f"{tokens:,} tokens fills the window of 1,024"):
        engine.submit([5] * tokens)
    assert time.perf_counter() - start < 1
    with pytest.raises(PromptTooLongError, match="empty"):
        engine.submit([])


def test_a_reply_ends_at_the_window(engine):
    reply = engine.submit([5, 9] * 508, sampling=Sampling(max_tokens=100, temperature=2.0, seed=3)).result(60)
    assert (reply.output_tokens, reply.finish_reason) == (8, "length")


def test_an_unknown_adapter_names_the_known(engine, adapters):
    engine.load_adapter(adapters[0], name="mine")
    with pytest.raises(AdapterNotFoundError, match="known: mine"):
        engine.submit(PROMPT, adapter="yours")
    engine.unload_adapter("mine")
    with pytest.raises(AdapterNotFoundError, match="known: none"):
        engine.submit(PROMPT, adapter="mine")


def test_a_closed_engine_fails_what_waits_and_what_comes(small):
    engine = Engine(str(small))
    pending = [engine.submit(PROMPT, sampling=Sampling(max_tokens=900, temperature=2.0, seed=i)) for i in range(40)]
    engine.close()
    for one in pending:
        with pytest.raises(EngineError, match="closed"):
            one.result(60)
    with pytest.raises(EngineError, match="closed"):
        engine.submit(PROMPT)
    engine.close()


def test_an_engine_nobody_holds_lets_its_memory_go(small):
    import gc
    import weakref

    engine = Engine(str(small))
    engine.submit(PROMPT).result(60)
    worker, gone = engine._worker._thread, weakref.ref(engine._worker.batch)
    del engine
    gc.collect()
    worker.join(10)
    assert not worker.is_alive()
    assert gone() is None


def test_a_forked_child_refuses_to_load_a_model_that_would_hang(small):
    import multiprocessing

    from fork_child import error_of_loading_in_a_child

    assert shared_engine("nano").submit(PROMPT, sampling=Sampling(max_tokens=2)).result(60)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert "spawn" in pool.apply_async(error_of_loading_in_a_child, (str(small),)).get(60)


def test_a_process_may_fork_before_it_loads_a_model(small):
    import subprocess
    import sys

    child = """if True:
        import multiprocessing, sys
        from cmat_graph.models.decoding.sampling import Sampling
        from cmat_graph.models.engine import shared_engine

        def answers(base):
            return len(shared_engine(base).submit([5, 6], sampling=Sampling(max_tokens=2)).result(60).tokens)

        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert 1 <= pool.apply_async(answers, (sys.argv[1],)).get(60) <= 2
    """
    subprocess.run([sys.executable, "-c", child, str(small)], check=True, timeout=120)


def test_a_model_without_keys_and_values_is_refused(tmp_path):
    from cmat_graph.errors import ModelNotFoundError

    base = make_base(
        tmp_path / "m", "qwen3_next", layer_types=["linear_attention", "full_attention", "linear_attention"]
    )
    with pytest.raises(ModelNotFoundError, match="linear_attention"):
        Engine(str(base))


def test_an_engine_of_the_parent_says_so_in_a_forked_child(small):
    import multiprocessing

    from fork_child import error_in_a_child

    engine = Engine(str(small))
    with multiprocessing.get_context("fork").Pool(1, initializer=error_in_a_child.hold, initargs=(engine,)) as pool:
        assert "forked" in pool.apply_async(error_in_a_child, (PROMPT,)).get(60)
    engine.close()


def test_adapters_cannot_come_in_a_requests_callback(engine, adapters):
    told = []

    def load(done):
        try:
            engine.load_adapter(adapters[0])
        except EngineError as exc:
            told.append(str(exc))

    pending = engine.submit(PROMPT, sampling=Sampling(max_tokens=50, temperature=2.0, seed=1))
    pending.future.add_done_callback(load)
    pending.result(60)
    assert engine.submit(PROMPT, sampling=Sampling(max_tokens=2)).result(60)
    assert "thread of your own" in told[0]


def test_a_cancelled_call_holds_neither_its_adapter_nor_its_place(small, adapters):
    engine = Engine(str(small), settings=EngineSettings(max_rows=1, max_waiting=1, adapter_bytes=60_000))
    keys = [engine.load_adapter(card) for card in (adapters[0], adapters[3])]  # one of them waits on disk

    async def give_up():
        for _ in range(3):
            for key in keys:
                task = asyncio.create_task(engine.asubmit(PROMPT, adapter=key, sampling=Sampling(max_tokens=2)))
                await asyncio.sleep(0.002)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(give_up())
    for _ in range(5):
        assert engine.submit(PROMPT, adapter=keys[0], sampling=Sampling(max_tokens=2)).result(60)
    time.sleep(0.1)
    assert not +engine._shelf._in_use
    engine.close()


def test_requests_given_up_make_room_at_once(small):
    engine = Engine(str(small), settings=EngineSettings(max_rows=1, max_waiting=3))
    long = Sampling(max_tokens=900, temperature=2.0, seed=1)
    running = engine.submit(PROMPT, sampling=long)
    while not engine._worker.batch.rows:
        time.sleep(0.001)
    for waiting in [engine.submit(PROMPT, sampling=long, timeout=0) for _ in range(3)]:
        waiting.cancel()
    assert engine.submit(PROMPT, sampling=Sampling(max_tokens=2), timeout=5)
    running.cancel()
    engine.close()


@pytest.mark.parametrize("setting", [{"max_rows": 0}, {"max_waiting": 0}, {"threads": 0}, {"prefix_bytes": -1}])
def test_engines_that_could_never_answer_are_refused(setting):
    with pytest.raises(ConfigurationError, match="at least"):
        EngineSettings(**setting)


def test_loops_end_unless_they_are_wanted():
    engine = Engine("nano")
    prompts = [[n] * 40 for n in range(4, 20)]  # nano repeats most of what repeats
    pending = [engine.submit(prompt, sampling=Sampling(max_tokens=120)) for prompt in prompts]
    ended = [each.result(120).output_tokens for each in pending]
    loop = prompts[ended.index(96)]
    assert engine.submit(loop, sampling=Sampling(max_tokens=120, ends_loops=False)).result(60).output_tokens == 120
    engine.close()
