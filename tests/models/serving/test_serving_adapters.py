"""Adapters loaded and unloaded while a server runs: in this process, on a vLLM, on our own server."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from clerk import Clerk, Desk, office, register, served
from stub import vllm

from cmat_graph.errors import AdapterMismatchError, AdapterNotFoundError, ServerError
from cmat_graph.models.serving import LocalAdapters, VLLMAdapters

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(params=["local", "vllm", "our own server"])
def server(request, registry):
    if request.param == "local":
        yield LocalAdapters(Desk())
    elif request.param == "vllm":
        with served(vllm("nano")) as url:
            yield VLLMAdapters(url)
    else:
        with office(Clerk(), registry) as url:
            yield VLLMAdapters(f"{url}/v1/")


@pytest.fixture
def card(registry):
    return with_config(register(registry, "one"))


def with_config(card):
    (Path(card.folder) / "adapter_config.json").write_text("{}")
    return card


def test_an_adapter_is_loaded_listed_and_unloaded(server, card):
    assert server.list() == []
    assert server.load(card) == "assistant/one"
    [found] = server.list()
    assert (found.name, found.base) == ("assistant/one", "nano")
    server.unload("assistant/one")
    assert server.list() == []


def test_a_name_may_mean_one_version_and_then_another(server, card, registry):
    other = with_config(register(registry, "two"))
    server.load(card, name="assistant")
    first = server.list()
    server.load(other, name="assistant")
    [found] = server.list()
    assert found.name == "assistant"
    assert "two" in found.folder
    assert "one" in first[0].folder


def test_what_is_not_there_cannot_be_loaded_or_unloaded(server, card):
    with pytest.raises(AdapterNotFoundError, match="unknown"):
        server.unload("unknown")
    if not isinstance(server, LocalAdapters):
        with pytest.raises(AdapterNotFoundError, match="o adapter found"):
            server.load(replace(card, folder=f"{Path(card.folder).parent}/gone"))


def test_a_server_that_sees_the_registry_elsewhere(card, registry):
    with served(vllm()) as url:
        VLLMAdapters(url, root=str(registry.root)).load(card)
        assert VLLMAdapters(url).list()[0].folder == f"{registry.root}/assistant/one"
        with pytest.raises(AdapterNotFoundError, match="/srv/adapters/assistant/one"):
            VLLMAdapters(url, root="/srv/adapters").load(card)


def test_a_vllm_that_may_not_change_its_adapters_names_the_setting(card):
    with served(vllm(updating=False)) as url:
        assert VLLMAdapters(url).list() == []
        for change in (lambda: VLLMAdapters(url).load(card), lambda: VLLMAdapters(url).unload("x")):
            with pytest.raises(ServerError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
                change()


def test_a_server_that_is_away_is_named_with_the_fix(card):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match=f"127.0.0.1:{port}.*vllm serve") as told:
        VLLMAdapters(f"http://127.0.0.1:{port}").load(card)
    assert "cmat-graph serve" in str(told.value)
    with pytest.raises(ServerError, match="no answer"):
        VLLMAdapters("http://[bad").list()


def test_a_wrong_key_and_a_wrong_server_are_named():
    with served(vllm(api_key="right")) as url:
        assert VLLMAdapters(url, api_key="right").list() == []
        with pytest.raises(ServerError, match=r"401.*Unauthorized.*api_key"):
            VLLMAdapters(url).list()
    with served(_something_else) as url, pytest.raises(ServerError, match="is that a vLLM server"):
        VLLMAdapters(url).list()


async def _something_else(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"<html>welcome</html>"})


# -- what our own server offers, and what it refuses ---------------------------------------------------------------


def test_models_are_the_base_and_what_the_registry_holds_for_it(client, url, registry, clerk):
    registry.promote(register(registry, "one"))
    register(registry, "two")
    register(registry, "foreign", base_hash="other")
    clerk.engine.load_adapter(registry.get("two"))
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {"nano", "assistant/one", "assistant/two", "assistant"}
    assert models["nano"].max_model_len == 512
    assert {m.parent for m in models.values()} == {None, "nano"}
    assert (models["assistant/one"].loaded, models["assistant/two"].loaded) == (False, True)
    assert models["assistant"].root == "assistant/one"
    assert client.models.retrieve("assistant/one") == models["assistant/one"]
    with pytest.raises(openai.NotFoundError, match="GET /v1/models"):
        client.models.retrieve("assistant/none")
    assert [each.name for each in VLLMAdapters(url).list()] == ["assistant/two"]


@pytest.mark.parametrize(
    ("model", "means"),
    [("nano", ""), ("assistant/one", "assistant/one"), ("two", "assistant/two"), ("assistant", "assistant/one")],
)
def test_a_model_is_the_base_an_adapter_or_a_node(client, registry, clerk, model, means):
    registry.promote(register(registry, "one"))
    register(registry, "two")
    reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    assert reply.model == model
    assert clerk.calls[0][1]["model"] == means


def test_a_whole_model_is_not_offered_on_the_base(client, registry):
    card = registry.update(replace(register(registry, "whole"), method="full"))
    registry.promote(card)
    assert [each.id for each in client.models.list()] == ["nano"]
    for name in ("assistant/whole", "assistant"):
        with pytest.raises(openai.NotFoundError, match="assistant/whole is a whole model, no adapter of nano"):
            client.chat.completions.create(model=name, messages=HELLO)


def test_a_node_answers_only_by_what_is_promoted(client, registry, clerk):
    new = register(registry, "new")
    with pytest.raises(openai.NotFoundError, match=r"none of its adapters is promoted.*assistant/new") as told:
        client.chat.completions.create(model="assistant", messages=HELLO)
    assert told.value.code == "model_not_found"
    assert not clerk.calls
    registry.promote(new)
    register(registry, "assistant", node="checker")  # an adapter that is called like the node
    client.chat.completions.create(model="assistant", messages=HELLO)
    assert clerk.calls[0][1]["model"] == "assistant/new"
    (registry.root / "assistant" / "current").write_text("lost")
    with pytest.raises(openai.NotFoundError, match="'assistant/lost' is gone"):
        client.chat.completions.create(model="assistant", messages=HELLO)


def test_an_adapter_s_own_name_means_no_other(url, registry):
    for name in ("one", "two"):
        register(registry, name)
    body = {"lora_name": "assistant/one", "lora_path": "assistant/two", "load_inplace": True}
    refused = httpx.post(f"{url}/v1/load_lora_adapter", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora_name")


def test_what_is_promoted_while_the_server_runs_answers_from_then_on(client, registry, clerk):
    for name in ("one", "two"):
        registry.promote(register(registry, name))
        client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "Hi"}])
    assert [settings["model"] for _, settings in clerk.calls] == ["assistant/one", "assistant/two"]


@pytest.mark.parametrize(
    "model", ["none", "assistant/none", "../adapters/assistant/one", "{folder}", "assistant/", "x" * 500]
)
def test_an_unknown_model_is_not_found_wherever_it_points(client, registry, clerk, model):
    card = register(registry, "one")
    model = model.format(folder=card.folder)
    with pytest.raises(openai.NotFoundError) as told:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    assert told.value.code == "model_not_found"
    assert not clerk.calls


def test_an_adapter_for_another_base_is_refused_by_name(client, registry):
    register(registry, "foreign", base_hash="other")
    with pytest.raises(openai.BadRequestError, match="was trained on"):
        client.chat.completions.create(model="foreign", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(AdapterMismatchError):
        LocalAdapters(Desk()).load(registry.get("foreign"))


def load(url, path, name="x", **more):
    return httpx.post(f"{url}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path} | more)


def test_adapters_come_from_the_registry_and_from_nowhere_else(url, registry, clerk, tmp_path):
    card = register(registry, "one")
    outside = tmp_path / "outside" / "one"
    outside.parent.mkdir()
    Path(card.folder).rename(outside)
    (registry.root / "assistant" / "link").symlink_to(outside)
    (registry.root / "assistant" / "loop").symlink_to(registry.root / "assistant" / "loop")
    hollow = registry.root / "assistant" / "hollow"
    hollow.mkdir()
    (hollow / "card.json").write_text((outside / "card.json").read_text())
    (hollow / "adapter_model.safetensors").symlink_to("/etc/passwd")
    strays = [str(outside), "../outside/one", "assistant/../../outside/one", "assistant/link", "assistant/hollow"]
    strays += ["/", "/etc/passwd", "..", "assistant/link/../one", "assistant/loop", "x" * 400, "a\0b"]
    for path in strays:
        reply = load(url, path)
        assert reply.status_code == 403, path
        assert reply.json()["error"]["type"] == "permission_error"
    assert [each["id"] for each in httpx.get(f"{url}/v1/models").json()["data"]] == ["nano"]
    register(registry, "two")
    for path in ("assistant/none", f"{registry.root}/none", "assistant/two/card.json"):
        assert load(url, path).status_code == 404, path
    assert not clerk.engine.loaded
    assert load(url, "assistant/two").text == "Success: LoRA adapter 'x' added successfully."
    assert load(url, str(registry.root / "assistant" / "two"), "y").status_code == 200
    assert set(clerk.engine.loaded) == {"x", "y"}


def test_a_registry_behind_a_link_is_still_the_registry(clerk, registry, tmp_path):
    register(registry, "one")
    (tmp_path / "linked").symlink_to(registry.root)
    with office(clerk, tmp_path / "linked") as url:
        assert load(url, "assistant/one").status_code == 200
        assert load(url, str(tmp_path / "linked" / "assistant" / "one"), "y").status_code == 200


def test_a_name_is_taken_over_only_in_place_and_the_base_s_never(url, registry):
    register(registry, "one")
    assert load(url, "assistant/one").status_code == 200
    again = load(url, "assistant/one")
    assert (again.status_code, "load_inplace" in again.text) == (400, True)
    assert load(url, "assistant/one", load_inplace=True).status_code == 200
    for name in ("nano", "", "a b", "x\n", "../x", "a@1"):
        assert load(url, "assistant/one", name).status_code == 400, name
    for body in ({}, {"lora_name": "x"}, {"lora_name": 3, "lora_path": "x"}, []):
        assert httpx.post(f"{url}/v1/load_lora_adapter", json=body).status_code == 400
        if body != {"lora_name": "x"}:
            assert httpx.post(f"{url}/v1/unload_lora_adapter", json=body).status_code == 400
