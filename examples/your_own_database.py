"""Tasks over a database of your own: a SQLite file here, any SQLAlchemy URL there. Nothing in it is changed."""

import json
import sqlite3
import tempfile
from pathlib import Path

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.models import ExpertChatModel
from cmat_graph.traces import SQLTraceStore

folder = Path(tempfile.mkdtemp())
with sqlite3.connect(folder / "shop.db") as connection:
    connection.execute("CREATE TABLE goods (name TEXT, price INTEGER)")
    connection.execute("INSERT INTO goods VALUES ('lamp', 20), ('rope', 5)")

tasks = [
    {
        "id": "raise",
        "type": "UPDATE",
        "description": "Lamps cost 25 from today. The table is goods, with name and price.",
        "label": ["UPDATE goods SET price = 25 WHERE name = 'lamp'"],
    },
    {
        "id": "ask",
        "description": "What does the rope cost? The table is goods, with name and price.",
        "sql": "SELECT price FROM goods WHERE name = 'rope'",
        "label": ["5"],
    },
]
(folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))

env = load_env("database", tasks=folder / "tasks.jsonl", url=f"sqlite:///{folder / 'shop.db'}")
traces = SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")
teacher = ExpertChatModel(demonstrations=env.demonstrations())  # your API model goes here
graph = create_cmat_graph(teacher, checker="probes").compile()

for outcome in run_episodes(graph, env.tasks(), env=env, traces=traces, run="teacher"):
    print(outcome.task.id, outcome.reward)
for episode in traces.episodes(run="teacher"):
    print(episode.task.id, len(episode.steps), "steps recorded")
