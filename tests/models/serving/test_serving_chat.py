"""Chat completions as OpenAI's own client sees them."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

import httpx
import openai
import pytest
from clerk import Clerk, eventually, office
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from cmat_graph.errors import (
    AdapterNotFoundError,
    EngineBusyError,
    EngineError,
    PromptTooLongError,
    UnsupportedAdapterError,
)

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"name": "weather", "args": {"city": "Genève"}, "id": "call_1", "type": "tool_call"}


def ask(client, **more):
    return client.chat.completions.create(**{"model": "nano", "messages": HELLO} | more)


def post(url, body, **more):
    return httpx.post(f"{url}/v1/chat/completions", **({"json": body} if body is not None else {}), **more)


def test_a_reply_comes_with_its_usage_and_reason(client):
    reply = ask(client)
    assert reply.choices[0].message.content == "Hello there, friend"
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.model, reply.object) == ("nano", "chat.completion")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (7, 3, 10)
    assert reply.usage.prompt_tokens_details.cached_tokens == 4
    assert reply.choices[0].confidence == 0.75  # our own


def test_settings_reach_the_model_and_what_is_left_out_does_not(client, clerk):
    more = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "unknown": 1}
    ask(client, temperature=0.5, top_p=0.9, seed=3, stop="END", max_completion_tokens=9, user="u", extra_body=more)
    ask(client, stop=["a", "b"], max_tokens=4, frequency_penalty=0, presence_penalty=0.0)
    first, second = (settings for _, settings in clerk.calls)
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "seed": 3}
    assert first == {"model": "", "max_tokens": 9, "stop": ["END"], **sampling}
    assert second == {"model": "", "max_tokens": 4, "stop": ["a", "b"]}


def test_what_vllm_adds_to_the_api_is_understood(client, clerk):
    more = {"chat_template_kwargs": {"enable_thinking": False}, "structured_outputs": {"choice": ["yes", "no"]}}
    ask(client, extra_body=more)
    assert clerk.calls[0][1] == {"model": "", "thinking": False, "choices": ["yes", "no"]}


def test_logprobs_come_if_they_are_asked_for(client, clerk):
    told = {"content": [{"token": "né", "logprob": -0.5}]}
    clerk.reply = lambda _, settings: AIMessage("né", response_metadata={"logprobs": told if settings else None})
    [first] = ask(client, logprobs=True).choices[0].logprobs.content
    assert (first.token, first.logprob, bytes(first.bytes).decode(), first.top_logprobs) == ("né", -0.5, "né", [])
    assert list(ask(client, logprobs=True, stream=True))[-1].choices[0].logprobs.content == [first]
    assert clerk.calls[0][1]["logprobs"] is True


def test_every_kind_of_message_reaches_the_model(client, clerk):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Genève"}'}}
    broken = {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{city:"}}
    parts = [{"type": "text", "text": "Rain"}, {"type": "text", "text": "?"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [call, broken]},
        {"role": "tool", "content": "dry", "tool_call_id": "call_1"},
    ]
    ask(client, messages=messages)
    system, human, ai, tool = clerk.calls[0][0]
    assert system == SystemMessage("Be brief.")
    assert human == HumanMessage("Rain?", name="Ann")
    assert ai.tool_calls == [CALL]
    assert [each["args"] for each in ai.invalid_tool_calls] == ["{city:"]
    assert tool == ToolMessage("dry", tool_call_id="call_1")


def test_several_choices_have_seeds_of_their_own(client, clerk):
    clerk.reply = lambda _, settings: AIMessage(f"seed {settings['seed']}")
    reply = ask(client, n=3, seed=10)
    assert [choice.message.content for choice in reply.choices] == ["seed 10", "seed 11", "seed 12"]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 9)  # one prompt, three replies
    pieces = {0: "", 1: "", 2: ""}
    for chunk in ask(client, n=3, seed=10, stream=True):
        pieces[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert pieces == {0: "seed 10", 1: "seed 11", 2: "seed 12"}


def test_a_stream_comes_word_by_word_and_ends_with_its_usage(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert [c.choices[0].delta.content for c in pieces] == ["", "Hello ", "there, ", "friend", None]
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in pieces] == [None] * 4 + ["stop"]
    assert (last.choices, last.usage.total_tokens) == ([], 10)
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in ask(client, stream=True))


def test_tools_go_in_and_calls_come_out(client, clerk):
    clerk.reply = AIMessage("", tool_calls=[CALL])
    reply = ask(client, tools=[WEATHER], tool_choice="auto", parallel_tool_calls=False).choices[0]
    assert (reply.finish_reason, reply.message.content) == ("tool_calls", None)
    [call] = reply.message.tool_calls
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == (
        "call_1",
        "weather",
        {"city": "Genève"},
    )
    assert clerk.calls[0][1]["tools"] == [WEATHER]
    chosen = {"type": "function", "function": {"name": "weather"}}
    ask(client, tools=[WEATHER], tool_choice=chosen)
    ask(client, tools=[WEATHER], tool_choice="none")
    assert clerk.calls[1][1]["tool_choice"] == chosen
    assert "tools" not in clerk.calls[2][1]


def test_streamed_tool_calls_come_together_in_the_client(client, clerk):
    clerk.reply = AIMessage("Looking. ", tool_calls=[CALL, CALL | {"id": "call_2", "args": {}}])
    with client.chat.completions.stream(model="nano", messages=HELLO, tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    assert choice.message.content == "Looking. "
    assert [(c.id, json.loads(c.function.arguments)) for c in choice.message.tool_calls] == [
        ("call_1", {"city": "Genève"}),
        ("call_2", {}),
    ]
    assert choice.finish_reason == "tool_calls"


def test_reasoning_is_kept_apart_from_the_reply(client, clerk):
    clerk.reply = AIMessage("42", additional_kwargs={"reasoning_content": "six by nine"})
    message = ask(client).choices[0].message
    assert (message.content, message.reasoning_content) == ("42", "six by nine")
    deltas = [chunk.choices[0].delta for chunk in ask(client, stream=True)]
    assert [delta.reasoning_content for delta in deltas if "reasoning_content" in delta.model_extra] == ["six by nine"]


def test_a_schema_reaches_the_model_and_plain_text_asks_for_nothing(client, clerk):
    schema = {"name": "place", "schema": {"type": "object", "properties": {}}, "strict": True}
    ask(client, response_format={"type": "json_schema", "json_schema": schema})
    ask(client, response_format={"type": "text"})
    assert clerk.calls[0][1]["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert "response_format" not in clerk.calls[1][1]


def test_the_async_client_asks_many_at_once(url, clerk):
    clerk.pause = 0.1

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            asked = [client.chat.completions.create(model="nano", messages=HELLO) for _ in range(20)]
            texts = [reply.choices[0].message.content for reply in await asyncio.gather(*asked)]
            stream = await client.chat.completions.create(model="nano", messages=HELLO, stream=True)
            return texts, "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    texts, streamed = asyncio.run(asyncio.wait_for(ask_all(), 5))
    assert set(texts) == {streamed} == {"Hello there, friend"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLongError("600 tokens; the window has 512"), 400, "context_length_exceeded"),
        (UnsupportedAdapterError("rank 900"), 400, None),
        (AdapterNotFoundError("gone"), 404, "model_not_found"),
        (EngineBusyError("the queue is full"), 429, "engine_busy"),
        (EngineError("not a number"), 503, "engine_error"),
        (TimeoutError(), 504, "timeout"),
        (KeyError("secret detail"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_told_as_openai_does(client, clerk, error, status, code, stream):
    clerk.reply = error
    with pytest.raises(openai.APIStatusError) as told:
        ask(client, stream=stream)
    assert (told.value.status_code, told.value.code) == (status, code)
    assert "secret" not in str(told.value)
    clerk.reply = AIMessage("still there")
    assert ask(client).choices[0].message.content == "still there"


def test_a_stream_that_breaks_off_says_so(client, clerk):
    clerk.fail_after = 2
    words = []
    with pytest.raises(openai.APIError) as told:
        words += [chunk.choices[0].delta.content for chunk in ask(client, stream=True)]
    assert "secret" not in str(told.value)
    assert "the server failed" in str(told.value)


def test_more_replies_than_there_are_seats_are_told_to_come_back(registry):
    clerk = Clerk(pause=0.3)
    with office(clerk, registry, max_replies=4) as url, httpx.Client() as http:
        body = {"model": "nano", "messages": HELLO}
        with http.stream("POST", f"{url}/v1/chat/completions", json=body | {"n": 3, "stream": True}) as first:
            lines = first.iter_lines()
            next(lines)
            refused = [post(url, body | {"n": 2, "stream": stream}) for stream in (False, True)]
            assert [each.status_code for each in refused] == [429, 429]
            assert refused[0].headers["retry-after"] == "1"
            patient = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5)
            assert ask(patient, n=2).choices[1].message.content == "Hello there, friend"


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"stream": True}, {"stream": True, "n": 3}])
def test_a_client_that_leaves_takes_its_request_with_it(url, clerk, more):
    clerk.pause = 5.0
    with pytest.raises(httpx.ReadTimeout):
        post(url, {"model": "nano", "messages": HELLO} | more, timeout=0.3)
    assert eventually(lambda: len(clerk.given_up) == more.get("n", 1))


def test_a_client_that_leaves_in_the_middle_of_a_stream_takes_its_request_with_it(url, client, clerk):
    clerk.reply, clerk.pause = AIMessage("word " * 1000), 0.02
    stream = ask(client, stream=True, n=2)
    for _ in range(6):
        next(stream)
    stream.close()
    assert eventually(lambda: len(clerk.given_up) == 2)


BAD = [
    "no json",
    "[]",
    "{}",
    "[" * 100_000,
    '{"model": "nano"}',
    '{"model": "nano", "messages": []}',
    '{"model": "nano", "messages": "hello"}',
    '{"model": "nano", "messages": [["user", "hi"]]}',
    '{"model": "nano", "messages": [{"role": "user"}]}',
    '{"model": "nano", "messages": [{"role": "boss", "content": "hi"}]}',
    '{"model": "nano", "messages": [{"role": "remove", "content": "hi", "id": "x"}]}',
    '{"model": "nano", "messages": [{"role": "user", "content": "\\ud800"}]}',
    '{"model": "nano", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}',
    '{"model": "nano", "messages": [{"role": "tool", "content": "dry"}]}',
    json.dumps({"model": "nano", "messages": [{"role": "user", "content": "hi"}] * 10_001}),
    '{"model": 7, "messages": [{"role": "user", "content": "hi"}]}',
]
WRONG = [
    {"temperature": -1},
    {"temperature": "NaN"},
    {"top_p": 0},
    {"n": 0},
    {"n": 10_000},
    {"max_tokens": 0},
    {"max_tokens": 1.5},
    {"seed": 2**200},
    {"structured_outputs": {"choice": []}},
    {"stop": ""},
    {"stop": [1]},
    {"stream": "perhaps"},
    {"logit_bias": {"5": 1}},
    {"frequency_penalty": 1.5},
    {"top_logprobs": 3},
    {"functions": [{"name": "old"}]},
    {"tools": "all"},
    {"tools": [{"type": "function", "function": {"name": "no good"}}]},
    {"tool_choice": "required"},
    {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}},
    {"response_format": {"type": "yaml"}},
    {"response_format": {"type": "json_schema"}},
]


@pytest.mark.parametrize("body", [*BAD, *(json.dumps({"model": "nano", "messages": HELLO} | each) for each in WRONG)])
def test_a_malformed_request_is_told_what_is_wrong_with_it(url, clerk, body):
    reply = post(url, None, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], bool(error["message"])) == ("invalid_request_error", True)
    assert not clerk.calls


def test_half_characters_that_hide_in_arguments_harm_nobody(client, clerk):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\ud800"}'}}
    clerk.reply = AIMessage("", tool_calls=[CALL | {"args": {"a": "\ud800"}}])
    message = ask(client, messages=[*HELLO, {"role": "assistant", "tool_calls": [call]}]).choices[0].message
    assert message.tool_calls[0].function.arguments == '{"a": "\\ud800"}'
    assert clerk.calls[0][0][1].invalid_tool_calls
    assert list(ask(client, stream=True))


def test_only_json_is_read_and_not_without_end(registry, clerk):
    body = json.dumps({"model": "nano", "messages": HELLO})
    with office(clerk, registry, max_bytes=1000) as url:
        forms = [post(url, None, content=body, headers={"Content-Type": kind}) for kind in ("text/plain", "")]
        assert [each.status_code for each in forms] == [415, 415]
        assert post(url, {"model": "nano", "messages": [{"role": "user", "content": "x" * 2000}]}).status_code == 413
        chunks = (b"x" * 500 for _ in range(10))  # without a length
        sent = httpx.post(f"{url}/v1/chat/completions", content=chunks, headers={"Content-Type": "application/json"})
        assert sent.status_code == 413
        assert httpx.get(f"{url}/v1/chat/completions").json()["error"]["message"] == "Method Not Allowed"
        assert httpx.get(f"{url}/v1/nothing").json()["error"]["message"] == "Not Found"
        assert httpx.get(f"{url}/health").status_code == 200
    assert not clerk.calls


def test_a_key_is_asked_for(registry, clerk):
    with office(clerk, registry, api_key="päss") as url:
        for shown in ({}, {"Authorization": "Bearer pass"}, {"Authorization": "päss".encode()}):
            reply = httpx.get(f"{url}/v1/models", headers=shown)
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        with pytest.raises(openai.AuthenticationError):
            ask(openai.OpenAI(base_url=f"{url}/v1", api_key="wrong"))
        key = {"Authorization": "bearer päss".encode()}
        assert httpx.get(f"{url}/v1/models", headers=key).status_code == 200
        assert httpx.get(f"{url}/health").status_code == 200


def test_without_a_key_a_foreign_name_for_this_machine_is_refused(url, clerk):
    """A web page may let its own name mean 127.0.0.1 (DNS rebinding); then the browser sends that name."""
    body = {"model": "nano", "messages": HELLO}
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1:80@evil.example", ""):
        refused = post(url, body, headers={"Host": host})
        assert refused.status_code == 400
        assert "CMAT_API_KEY" in refused.json()["error"]["message"]
    assert not clerk.calls
    for host in ("localhost:99", "127.0.0.1", "[::1]:8000"):
        assert post(url, body, headers={"Host": host}).status_code == 200
    assert "access-control-allow-origin" not in post(url, body, headers={"Origin": "https://evil.example"}).headers


def test_noise_on_the_socket_harms_nobody(url, client):
    host, port = url.removeprefix("http://").split(":")
    for noise in (b"\x00\xff" * 500 + b"\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n"):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(noise)
            raw.settimeout(3)
            assert b"400" in raw.recv(100)
    assert ask(client).choices[0].message.content


@pytest.mark.parametrize(("package", "module"), [("starlette", "app"), ("uvicorn", "running")])
def test_a_missing_package_is_named_with_its_extra(package, module):
    code = f"import sys; sys.modules[{package!r}] = None; import cmat_graph.models.serving.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "cmat-graph[serve]"' in done.stderr.splitlines()[-1]
