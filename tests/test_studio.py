"""`langgraph dev` serves the graph that langgraph.json names, offline."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_file_names_a_graph_that_builds():
    from langgraph.graph.state import CompiledStateGraph

    from cmat_graph.studio import graph

    spec = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["cmat"]["path"]
    assert spec == "cmat_graph.studio:graph"
    assert isinstance(asyncio.run(graph()), CompiledStateGraph)


@pytest.mark.server
@pytest.mark.timeout(180)
def test_the_dev_server_draws_and_runs_the_graph(tmp_path):
    langgraph_sdk = pytest.importorskip("langgraph_sdk")
    shutil.copy(ROOT / "langgraph.json", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "app"\nversion = "0"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        str(Path(sys.executable).with_name("langgraph")),
        "dev",
        "--no-browser",
        "--no-reload",
        "--port",
        str(port),
    ]
    quiet = os.environ | {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=quiet)
    try:
        _wait(url, server, tmp_path / "log")
        nodes, answer = asyncio.run(_ask(langgraph_sdk.get_client(url=url)))
    except langgraph_sdk.errors.APIError as exc:
        raise AssertionError((tmp_path / "log").read_text()[-3000:]) from exc
    finally:
        server.terminate()
        server.wait(20)
    assert {"user", "assistant", "checker", "execute", "reflect", "retry"} <= nodes
    assert answer


def _wait(url, server, log):
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{url}/ok", timeout=1)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text())


async def _ask(client):
    drawn = await client.assistants.get_graph("cmat")
    assistants = await client.assistants.search()
    schemas = await client.assistants.get_schemas(assistants[0]["assistant_id"])
    assert "max_rounds" in json.dumps(schemas["context_schema"])
    state = await client.runs.wait(
        None, "cmat", input={"messages": [{"role": "user", "content": "How many are open?"}]}
    )
    return {node["id"] for node in drawn["nodes"]}, state["messages"][-1]["content"]
