"""The real thing: TinyAgent-nano and two adapters behind the server, asked by real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import torch
from clerk import eventually, served
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cmat_graph import AdapterRegistry, create_cmat_graph
from cmat_graph.adapters import AdapterCard
from cmat_graph.bases import NANO_FOLDER, hash_base
from cmat_graph.cli import main
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.serving import VLLMAdapters
from cmat_graph.models.serving.app import create_app

NAMES = ("one", "two")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registry = AdapterRegistry(tmp_path_factory.mktemp("nano") / "adapters")
    for seed, name in enumerate(NAMES):
        model = AutoModelForCausalLM.from_pretrained(NANO_FOLDER, dtype=torch.float32)
        torch.manual_seed(seed)
        tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        card = AdapterCard(name=name, node="assistant", base="nano", base_hash=hash_base(NANO_FOLDER))
        registry.add(card, lambda folder, tuned=tuned, card=card: tuned.save_pretrained(folder) or card)
    registry.promote(registry.get("one"))
    return registry


@pytest.fixture(scope="module")
def agent(registry):
    return TinyAgent.load("nano", adapters=registry, max_tokens=24)


@pytest.fixture(scope="module")
def url(agent, registry):
    with served(create_app(agent, registry=registry)) as url:
        yield url


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, model, text="Which orders are open?", **more):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


def text(reply):
    return reply.choices[0].message.content


def test_base_and_adapters_answer_as_they_do_in_process(client, agent, registry):
    prompt = "Which orders are open?"
    here = [agent.invoke(prompt).text] + [
        TinyAgent.load("nano", adapter=name, adapters=registry, max_tokens=24).invoke(prompt).text for name in NAMES
    ]
    assert [text(ask(client, model)) for model in ("nano", "assistant/one", "two")] == here
    assert len(set(here)) == 3
    assert text(ask(client, "assistant")) == here[1]  # the promoted one
    assert ask(client, "nano").usage.prompt_tokens == agent.invoke(prompt).usage_metadata["input_tokens"]


def test_a_streamed_reply_is_the_whole_reply(client):
    chunks = list(ask(client, "assistant/one", stream=True, stream_options={"include_usage": True}))
    whole = ask(client, "assistant/one")
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text(whole)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 1


def test_many_at_once_over_all_models_answer_as_alone(url, client):
    alone = {model: text(ask(client, model)) for model in ("nano", "assistant/one", "assistant/two")}

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as many:
            asked = list(alone) * 10
            return asked, await asyncio.gather(*(ask(many, model) for model in asked))

    asked, replies = asyncio.run(ask_all())
    assert [text(reply) for reply in replies] == [alone[model] for model in asked]


def test_a_seed_repeats_several_choices(client):
    hot = {"temperature": 1.5, "seed": 5, "n": 3, "max_tokens": 16}
    first, second = ([c.message.content for c in ask(client, "nano", **hot).choices] for _ in range(2))
    assert first == second
    assert len(set(first)) > 1


def test_limits_and_stop_strings_hold(client):
    cut = ask(client, "nano", max_tokens=3)
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (3, "length")
    whole = text(ask(client, "nano"))
    mark = whole[5:7]
    assert text(ask(client, "nano", stop=mark)) == whole[: whole.index(mark)]


def test_a_schema_holds_whatever_the_model_is(client):
    schema = {
        "type": "object",
        "properties": {"verdict": {"enum": ["approve", "reject"]}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    assert json.loads(text(ask(client, "two", response_format=form)))["verdict"] in ("approve", "reject")
    choice = {"structured_outputs": {"choice": ["yes", "no"]}}
    assert text(ask(client, "nano", extra_body=choice)) in ("yes", "no")


def test_a_schema_that_cannot_be_kept_is_the_client_s_fault(client):
    for schema in ({"type": "nonsense"}, {"$ref": "#/nowhere"}, {"pattern": "(((", "type": "string"}, {"$ref": "#"}):
        form = {"type": "json_schema", "json_schema": {"name": "bad", "schema": schema}}
        with pytest.raises(openai.BadRequestError):
            ask(client, "nano", response_format=form)
    assert text(ask(client, "nano"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_of_a_hundred_thousand_tokens_is_refused_and_harms_nobody(client, stream):
    with pytest.raises(openai.BadRequestError) as told:
        ask(client, "nano", "order " * 100_000, stream=stream)
    assert told.value.code == "context_length_exceeded"
    assert text(ask(client, "nano"))


@pytest.mark.clock
@pytest.mark.parametrize("message", ["order " * 1_200_000, "<|end|>" * 900_000])
def test_a_prompt_of_seven_megabytes_is_refused_at_once_and_delays_nobody(client, message):
    alone = _seconds(lambda: ask(client, "nano", max_tokens=4))
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(_seconds, lambda: _too_long(client, message))
        others = [_seconds(lambda: ask(client, "nano", max_tokens=4)) for _ in range(4)]
        assert refused.result() < 5
    assert max(others) < alone + 4


def _too_long(client, message):
    with pytest.raises(openai.BadRequestError) as told:
        ask(client, "nano", message)
    assert told.value.code == "context_length_exceeded"


def _seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_rows(url, client, agent, stream, monkeypatch):
    pending = []
    submit = agent.engine.asubmit

    async def noted(*args, **kwargs):
        pending.append(await submit(*args, **kwargs))
        return pending[-1]

    monkeypatch.setattr(agent.engine, "asubmit", noted)
    hot = {"max_tokens": 400, "temperature": 2.0, "seed": 1, "n": 8}  # so hot that it hardly ends by itself
    body = {"model": "nano", "messages": [{"role": "user", "content": "Go on"}], "stream": stream} | hot
    post = httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=0.3)
    with contextlib.suppress(httpx.ReadTimeout), post as reply:
        next(reply.iter_lines())
    assert eventually(lambda: all(each.future.done() for each in pending))
    assert len(pending) < 8 or any(each.future.cancelled() for each in pending)
    assert text(ask(client, "nano"))


def test_an_adapter_is_swapped_while_it_answers(url, client, registry):
    server = VLLMAdapters(url)
    server.load(registry.get("one"), name="swapped")
    one = text(ask(client, "swapped"))
    server.load(registry.get("two"), name="swapped")
    assert (one, text(ask(client, "swapped"))) == tuple(text(ask(client, f"assistant/{name}")) for name in NAMES)
    server.unload("swapped")
    with pytest.raises(openai.NotFoundError):
        ask(client, "swapped")


def test_broken_weights_are_refused_and_harm_nobody(url, client, registry):
    card = registry.add(AdapterCard(name="cut", node="assistant", base="nano"), lambda folder: _cut(folder, registry))
    refused = httpx.post(f"{url}/v1/load_lora_adapter", json={"lora_name": "cut", "lora_path": card.id})
    assert refused.status_code in (400, 404)
    assert "cut" in refused.json()["error"]["message"]
    assert text(ask(client, "nano"))


def _cut(folder, registry):
    good = Path(registry.get("one").folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes((good / name).read_bytes()[:2000])
    return AdapterCard(name="cut", node="assistant", base="nano", base_hash=hash_base(NANO_FOLDER))


def test_a_graph_elsewhere_uses_a_tuned_node(url):
    assistant = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="assistant", max_retries=0)
    graph = create_cmat_graph(assistant, checker="probes").compile()
    done = graph.invoke({"messages": [HumanMessage("Which orders are open?")]})
    assert done["messages"][-1].text


# -- the command ---------------------------------------------------------------------------------------------------


@contextmanager
def command(*words, **environment):
    """Run `cmat-graph serve` as a process; yield it and the line it tells when it is ready."""
    words = [sys.executable, "-m", "cmat_graph.cli", "serve", *map(str, words), "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, **pipes)
    try:
        line = process.stdout.readline()
        yield process, json.loads(line) if line else {}
    finally:
        process.kill()
        process.communicate()


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop_and_finishes_what_it_began(registry, number):
    with command("nano", "--adapters", registry.root, "--adapter", "one", CMAT_API_KEY="key") as (process, told):
        assert told["pid"] == process.pid
        assert (told["base"], told["adapters"]) == ("nano", ["assistant/one"])
        client = openai.OpenAI(base_url=told["url"], api_key="key")
        assert text(ask(client, "one"))
        with pytest.raises(openai.AuthenticationError):
            ask(openai.OpenAI(base_url=told["url"], api_key="no"), "one")
        stream = ask(client, "nano", stream=True, max_tokens=60, temperature=2, seed=1)
        next(stream)
        process.send_signal(number)
        assert [c.choices[0].finish_reason for c in stream][-1] in ("stop", "length")
        client.close()
        assert process.wait(20) == 0
        errors = process.stderr.read()
        assert "stopped" in errors
        assert "Traceback" not in errors


def test_a_taken_port_an_open_door_and_an_unknown_adapter_are_one_line_each(registry, monkeypatch, capsys):
    with served(create_app(TinyAgent.load("nano"), registry=registry)) as url:
        port = url.rsplit(":", 1)[1]
        for words, said in (
            (["--port", port], rf"cannot listen on 127.0.0.1:{port}: .*in use.*--port"),
            (["--host", "0.0.0.0"], "set a key in CMAT_API_KEY"),
            (["--adapter", "none"], "no adapter 'none'.*known: assistant/one"),
            (["--host", "no.such.host.invalid", "--api-key", "k"], "cannot listen on no.such.host.invalid"),
        ):
            monkeypatch.setattr(sys, "argv", ["cmat-graph", "serve", "--adapters", str(registry.root), *words])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 1
            [line] = capsys.readouterr().err.splitlines()
            assert re.search(said, line), line
