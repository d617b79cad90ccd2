"""`langgraph dev` with our store for its long-term memory: named in langgraph.json, without a line of code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import servers

from cmat_graph.memory import lessons
from cmat_graph.memory.chroma.opening import open_store

sdk = pytest.importorskip("langgraph_sdk")
SUM = {"messages": [{"role": "user", "content": "What is 2 + 2?"}]}


@pytest.mark.server
@pytest.mark.timeout(180)
def test_the_server_keeps_items_and_lessons_in_the_folder_it_is_told(tmp_path):
    spec = {
        "dependencies": ["."],
        "graphs": {"clerk": {"path": "./studio_app.py:clerk"}},
        "store": {"path": "cmat_graph.studio.store"},
        "env": {"LANGSMITH_TRACING": "false"},
    }
    (tmp_path / "langgraph.json").write_text(json.dumps(spec))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "app"\nversion = "0"\n')
    shutil.copy(Path(__file__).with_name("studio_app.py"), tmp_path)
    memory = tmp_path / "lessons"
    with servers.langgraph_dev(tmp_path, CMAT_MEMORY=str(memory)) as url:
        client = sdk.get_sync_client(url=url)
        client.store.put_item(["docs"], key="pears", value={"text": "pears grow in the garden"})
        client.store.put_item(["docs"], key="cars", value={"text": "a car has four wheels"})
        found = client.store.search_items(["docs"], query="Where do pears grow?", limit=1)["items"]
        assert [item["key"] for item in found] == ["pears"]
        thread = client.threads.create()["thread_id"]
        state = client.runs.wait(thread, "clerk", input=SUM, context={"env": "counting"})
        assert state["cmat"]["stopped"] == "passed"
        (item,) = client.store.search_items(["reflections"])["items"]
        assert item["value"]["text"] == "Use your fingers."
    with open_store(memory) as store:  # the server gave the folder back, and all is there
        assert [lesson.text for lesson in lessons(store, env="counting")] == ["Use your fingers."]
        assert store.get(("docs",), "cars") is not None
