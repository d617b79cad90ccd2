"""langchain-community's tools and `SQLDatabase` are taken as they come."""

from __future__ import annotations

import json
import sqlite3
import warnings

import pytest
from langchain_core.messages import AIMessage

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.errors import ConfigurationError
from cmat_graph.models import ExpertChatModel
from cmat_graph.testing import ScriptedChatModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the package is being sunset, and says so
    community = pytest.importorskip("langchain_community.utilities")
    tools = pytest.importorskip("langchain_community.tools.sql_database.tool")


@pytest.fixture
def database(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (id TEXT, status TEXT)")
        connection.execute("INSERT INTO orders VALUES ('A1', 'open'), ('A2', 'open')")
    return community.SQLDatabase.from_uri(f"sqlite:///{tmp_path / 'shop.db'}")


def test_its_tools_are_checked_and_run(database):
    ask = tools.QuerySQLDatabaseTool(db=database)
    wrong, right = ({"sql": "SELECT 1"}, {"query": "SELECT count(*) FROM orders"})
    replies = [AIMessage("", tool_calls=[{"name": ask.name, "args": args, "id": "1"}]) for args in (wrong, right)]
    model = ScriptedChatModel(replies=[*replies, "Two orders."])
    graph = create_cmat_graph(model, tools=[ask], checker="probes").compile()
    result = graph.invoke({"messages": [("user", "How many orders are there?")]})
    assert (result["cmat"]["stopped"], result["messages"][-1].text) == ("passed", "Two orders.")
    assert "Not run. Checker:" in model.calls[1][-1].text
    assert model.calls[2][-1].text == "[(2,)]"


def test_tasks_play_over_its_database(database, tmp_path):
    task = {
        "id": "1",
        "type": "UPDATE",
        "description": "Settle A1.",
        "label": ["UPDATE orders SET status = 'paid' WHERE id = 'A1'"],
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task))
    env = load_env(tasks=tmp_path / "tasks.jsonl", url=database)
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations()), checker="probes").compile()
    (outcome,) = run_episodes(graph, env.tasks(), env=env)
    assert outcome.reward == 1.0
    assert "open" in database.run("SELECT status FROM orders WHERE id = 'A1'")


def test_a_database_in_memory_is_refused():
    with pytest.raises(ConfigurationError, match="put it into a file"):
        load_env(tasks="tests/none.jsonl", url=community.SQLDatabase.from_uri("sqlite://"))
