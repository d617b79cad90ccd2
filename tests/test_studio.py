"""`langgraph dev` serves the graph that langgraph.json names, and one of a user's own: what Studio shows and does.

Nothing here allows blocking calls: a node that held up the server's event loop would fail its run.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest
import servers
from langgraph.graph.state import CompiledStateGraph
from sculptures import script

from cmat_graph import create_cmat_graph
from cmat_graph.errors import ConfigurationError
from cmat_graph.traces import SQLTraceStore

sdk = pytest.importorskip("langgraph_sdk")
ROOT = Path(__file__).parents[1]
SUM = {"messages": [{"role": "user", "content": "What is 2 + 2?"}]}
LETTER = {"messages": [{"role": "user", "content": "Write a letter to Ann."}]}


def test_the_file_names_a_graph_that_builds():
    from cmat_graph.studio import graph

    spec = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["cmat"]["path"]
    assert spec == "cmat_graph.studio:graph"
    assert isinstance(asyncio.run(graph()), CompiledStateGraph)


def test_the_environment_chooses_who_sits_where(monkeypatch):
    from cmat_graph import studio

    for name, value in {"CHECKER": "probes", "REFLECTOR": "nano", "HUMAN": "user, checker"}.items():
        monkeypatch.setenv(f"CMAT_{name}", value)
    assert "approve" in studio._build.__wrapped__().get_graph().nodes
    monkeypatch.setenv("CMAT_HUMAN", "boss")
    with pytest.raises(ConfigurationError, match="'boss'"):
        studio._build.__wrapped__()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def url(folder):
    spec = json.loads((ROOT / "langgraph.json").read_text())
    spec["graphs"]["clerk"] = {"path": "./studio_app.py:clerk"}
    (folder / "langgraph.json").write_text(json.dumps(spec))
    (folder / "pyproject.toml").write_text('[project]\nname = "app"\nversion = "0"\n')
    shutil.copy(ROOT / "tests" / "studio_app.py", folder)
    with servers.langgraph_dev(folder) as url:
        yield url


@pytest.fixture
def client(url):
    return sdk.get_sync_client(url=url)


@pytest.fixture
def thread(client):
    return client.threads.create()["thread_id"]


@pytest.mark.server
@pytest.mark.timeout(180)
def test_the_served_graph_answers(client):
    state = client.runs.wait(None, "cmat", input={"messages": [{"role": "user", "content": "How many are open?"}]})
    assert state["messages"][-1]["content"]
    assert state["cmat"]["stopped"] == "passed"


@pytest.mark.server
def test_the_graph_is_drawn_as_it_is(client):
    drawn = client.assistants.get_graph("clerk")
    named = {"user", "assistant", "checker", "approve", "execute", "reflect", "retry"}
    assert {node["id"] for node in drawn["nodes"]} == {"__start__", *named, "__end__"}
    chosen = {(edge["source"], edge["target"]) for edge in drawn["edges"] if edge.get("conditional")}
    assert {target for source, target in chosen if source == "checker"} == {
        "assistant",
        "approve",
        "reflect",
        "retry",
        "__end__",
    }
    assert ("user", "assistant") in {(edge["source"], edge["target"]) for edge in drawn["edges"]} - chosen


@pytest.mark.server
def test_forms_come_from_the_schemas(client):
    (assistant,) = client.assistants.search(graph_id="clerk")
    schemas = client.assistants.get_schemas(assistant["assistant_id"])
    assert set(schemas["input_schema"]["properties"]) == {"messages"}
    assert set(schemas["output_schema"]["properties"]) == {"messages", "cmat"}
    fields = schemas["context_schema"]["properties"]
    assert set(fields) >= {"rules", "max_rounds", "assistant_prompt", "checker_prompt", "reflect_prompt"}
    assert not {"session", "played"} & set(fields)
    assert all(field["description"] and field["langgraph_nodes"] for field in fields.values())
    prompt = fields["checker_prompt"]
    assert (prompt["langgraph_type"], prompt["langgraph_nodes"]) == ("prompt", ["checker"])


@pytest.mark.server
def test_a_run_streams_what_every_node_did(client, thread):
    modes = ["updates", "custom", "messages-tuple"]
    fresh = {"env": "streamed"}  # nothing was learned there yet
    parts = list(client.runs.stream(thread, "clerk", input=SUM, context=fresh, stream_mode=modes))
    assert not [part.data for part in parts if part.event == "error"]
    updates = [part.data for part in parts if part.event == "updates"]
    assert [node for update in updates for node in update] == [
        *("user", "assistant", "checker", "reflect", "retry", "assistant", "checker")
    ]
    assert updates[2]["checker"]["cmat"]["verdict"]["decision"] == "reject"
    assert updates[3]["reflect"]["cmat"]["lessons"] == ["Use your fingers."]
    events = [part.data["type"] for part in parts if part.event == "custom"]
    assert events == ["task", "verdict", "lesson", "attempt", "verdict", "end"]
    words = [part.data[0]["content"] for part in parts if part.event == "messages"]
    assert words[:3] == ["It ", "is ", "5."]


@pytest.mark.server
def test_lessons_lie_in_the_servers_store(client, thread):
    client.runs.wait(thread, "clerk", input=SUM, context={"env": "taught"})
    found = client.store.search_items(("reflections",), limit=100)["items"]
    assert {item["value"]["text"] for item in found} == {"Use your fingers."}
    assert ["reflections", "taught", "assistant", "any"] in [item["namespace"] for item in found]
    again = client.runs.wait(thread, "clerk", input=SUM, context={"env": "taught"})
    told = ["Use your fingers. What then worked: It is 4."]
    assert (again["cmat"]["attempt"], again["cmat"]["lessons"]) == (1, told)


@pytest.mark.server
def test_a_bound_handler_records_what_is_served(client, folder):
    state = client.runs.wait(None, "clerk", input=SUM, context={"env": "recorded"})
    store = SQLTraceStore(f"sqlite:///{folder}/traces.db")
    for _ in range(50):  # the server's process writes a moment later
        served = {episode.id: episode for episode in store.episodes(run="clerk") if episode.stopped != "running"}
        if episode := served.get(state["cmat"]["episode"]):
            break
        time.sleep(0.1)
    assert (episode.task.prompt, episode.answer, episode.attempts) == ("What is 2 + 2?", "It is 4.", 2)
    assert [step.node for step in episode.steps] == ["assistant", "checker", "reflect", "assistant", "checker"]


@pytest.mark.server
def test_prompts_are_edited_for_one_run(client, thread):
    client.runs.wait(thread, "clerk", input=LETTER, context={"assistant_prompt": "Be curt.", "max_rounds": 1})
    assert client.threads.get_state(thread)["interrupts"]


@pytest.mark.server
def test_an_interrupt_is_listed_with_its_form_and_answered(client, thread):
    state = client.runs.wait(thread, "clerk", input=LETTER)
    (asked,) = state["__interrupt__"]
    assert asked["value"]["action"] == "send(to='Ann')"
    (listed,) = client.threads.get_state(thread)["interrupts"]
    assert listed["response_schema"]["properties"]["decision"]["enum"] == ["approve", "revise", "reject"]
    assert client.threads.get(thread)["status"] == "interrupted"
    state = client.runs.wait(thread, "clerk", command={"resume": {"decision": "approve"}})
    assert (state["messages"][-1]["content"], state["cmat"]["stopped"]) == ("Sent.", "passed")
    assert state["cmat"]["done_so_far"] == [['[["send", {"to": "Ann"}]]', "sent to Ann", "tools"]]


@pytest.mark.server
def test_going_back_sends_the_letter_again_when_one_wants_to(client, thread):
    client.runs.wait(thread, "clerk", input=LETTER)
    client.runs.wait(thread, "clerk", command={"resume": {"decision": "approve"}})
    history = client.threads.get_history(thread, limit=20)
    before = next(state for state in history if state["next"] == ["execute"])
    state = client.runs.wait(thread, "clerk", input=None, checkpoint=before["checkpoint"])
    assert state["cmat"]["done_so_far"][0][1] == "sent to Ann"


@pytest.mark.server
def test_the_served_graph_is_used_from_afar(url):
    from langgraph.pregel.remote import RemoteGraph

    far = RemoteGraph("clerk", url=url)
    assert far.invoke(SUM)["messages"][-1]["content"] == "It is 4."
    assert "approve" in far.get_graph().nodes


@pytest.mark.server
def test_a_served_graph_is_the_assistant_of_another(url):
    from langgraph.pregel.remote import RemoteGraph

    judge = script("approve")
    graph = create_cmat_graph(RemoteGraph("clerk", url=url), checker=judge).compile()
    given = {"messages": [("user", "What is 2 + 2?")]}
    for state in (graph.invoke(given), asyncio.run(graph.ainvoke(given))):
        assert (state["messages"][-1].text, state["cmat"]["stopped"]) == ("It is 4.", "passed")
    assert judge.calls[0][1].text.endswith("Its answer:\nIt is 4.")
    with pytest.raises(ConfigurationError, match="waits for a person"):
        graph.invoke(LETTER)
