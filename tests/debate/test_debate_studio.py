"""The debate as `langgraph dev` serves it: what Studio shows, and a person's vote from afar."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import servers
from langgraph.graph.state import CompiledStateGraph

sdk = pytest.importorskip("langgraph_sdk")
ROOT = Path(__file__).parents[2]
ASK = {"messages": [{"role": "user", "content": "What is the result of 3+4*5+6-7*8?"}]}


def test_the_file_names_a_debate_that_builds(monkeypatch):
    from cmat_graph import studio

    assert json.loads((ROOT / "langgraph.json").read_text())["graphs"]["debate"]["path"] == "cmat_graph.studio:debate"
    built = asyncio.run(studio.debate())
    assert isinstance(built, CompiledStateGraph)
    assert "critic-2" in built.get_graph().nodes
    for name, value in {"DEBATE_AGENTS": "2", "DEBATE_ROUNDS": "1", "DEBATE_BASE": "nano"}.items():
        monkeypatch.setenv(f"CMAT_{name}", value)
    nodes = studio._build_debate.__wrapped__().get_graph().nodes
    assert {name for name in nodes if "-" in name} == {"generator-0", "generator-1"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    (folder / "langgraph.json").write_text((ROOT / "langgraph.json").read_text())
    (folder / "pyproject.toml").write_text('[project]\nname = "app"\nversion = "0"\n')
    with servers.langgraph_dev(folder, CMAT_HUMAN="vote", CMAT_DEBATE_BASE="nano") as url:
        yield sdk.get_sync_client(url=url)


@pytest.mark.server
@pytest.mark.timeout(240)
def test_studio_shows_every_agent(client):
    drawn = client.assistants.get_graph("debate")
    seats = {f"{role}-{i}" for role in ("generator", "summary", "critic") for i in range(3)}
    assert {node["id"] for node in drawn["nodes"]} == {"__start__", "user", "moderator", "vote", "__end__"} | seats
    (assistant,) = client.assistants.search(graph_id="debate")
    schemas = client.assistants.get_schemas(assistant["assistant_id"])
    assert set(schemas["input_schema"]["properties"]) == {"messages"}
    assert set(schemas["output_schema"]["properties"]) == {"messages", "debate"}


@pytest.mark.server
@pytest.mark.timeout(240)
def test_a_person_votes_from_afar(client):
    thread = client.threads.create()["thread_id"]
    state = client.runs.wait(thread, "debate", input=ASK)
    (asked,) = state["__interrupt__"]
    assert [each["agent"] for each in asked["value"]["solutions"]] == [0, 1, 2]
    state = client.runs.wait(thread, "debate", command={"resume": {"answer": "-27"}})
    assert (state["messages"][-1]["content"], state["debate"]["by"], state["debate"]["stopped"]) == (
        "-27", "human", "ended",
    )  # fmt: skip
