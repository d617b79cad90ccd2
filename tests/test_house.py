"""The house rules: imports point down, the two halves meet in two places, heavy libraries stay out of the door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cmat_graph

ROOT = Path(cmat_graph.__file__).parent
FLOORS = {
    "types": 0, "errors": 0, "sqlite": 0, "__init__": 0,
    "traces": 1, "memory": 1, "adapters": 1, "bases": 1, "rendering": 1, "splits": 1, "probes": 1, "diagnosis": 1,
    "report": 1, "records": 1, "progress": 1, "paired": 1, "answers": 1,
    "flaws": 1, "scoring": 1,
    "state": 2,
    "nodes": 3, "envs": 3, "models": 3, "tuning": 3, "testing": 3,
    "graph": 4, "drills": 4, "debate": 4,
    "rollout": 5, "studio": 5, "middleware": 5,
    "evaluation": 6, "assignment": 6, "resuming": 6, "team": 6,
    "diversity": 6,
    "gate": 7,
    "demo": 8, "improve": 8, "experiments": 8, "society": 8, "suite": 8,
    "cli": 9,
}  # fmt: skip
ACTING = {"nodes", "graph", "middleware", "rollout", "evaluation", "envs", "memory", "state"}


def _imports() -> list[tuple[str, str]]:
    found = []
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.module == "cmat_graph":
                names = [f"cmat_graph.{alias.name}" for alias in node.names]
            found += [(room, name.split(".")[1]) for name in names if name.startswith("cmat_graph.")]
    return found


def test_every_room_has_a_floor():
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms == set(FLOORS)


def test_imports_point_down():
    up = {(a, b) for a, b in _imports() if a not in (b, "__init__") and FLOORS[a] <= FLOORS[b]}
    assert not up


def test_the_halves_meet_only_in_traces_and_adapters():
    tuning = {b for a, b in _imports() if a == "tuning"}
    assert tuning & ACTING == set()
    assert {"traces", "adapters"} <= tuning
    assert not [pair for pair in _imports() if pair[0] in ACTING and pair[1] == "tuning"]


def test_the_front_door_is_sorted_and_true():
    assert cmat_graph.__all__ == sorted(cmat_graph.__all__)
    for name in cmat_graph.__all__:
        assert getattr(cmat_graph, name) is not None
    assert callable(cmat_graph.evaluate)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cmat_graph.nothing


def test_imports_without_the_heavy_packages():
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'trl', 'chromadb'): sys.modules[name] = None\n"
        "import cmat_graph\n"
        "for name in cmat_graph.__all__: getattr(cmat_graph, name)\n"
        "import cmat_graph.tuning, cmat_graph.models, cmat_graph.envs, cmat_graph.memory, cmat_graph.traces\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_does_not_wait_for_langgraph():
    code = (
        "import sys\nfrom cmat_graph.cli import cli\n"
        "for name in ('', 'adapters', 'dataset', 'distill', 'evaluate', 'experiment', 'flaws', 'improve', 'run',\n"
        "             'traces'):\n"
        "    try: cli([*name.split(), '--help'])\n"
        "    except SystemExit: pass\n"
        "assert not {'langgraph', 'langchain_core', 'torch', 'sqlalchemy', 'chromadb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_missing_extra_is_named(tmp_path):
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        "from cmat_graph.models import load_model\n"
        "try: load_model('nano')\n"
        "except ImportError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'pip install "cmat-graph[local]"' in done.stdout


def test_no_group_is_repeated_possessively():
    """Python before 3.11.5 matches `(?:ab?c)*+` wrongly (gh-106052); `(?>(?:ab?c)*)` says the same. One sign may be."""
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in ROOT.rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"(?<!\\)[)}][*+?]\+|(?<!\\)\)\{+\d*,?\d*\}+\+", line)
    ]
    assert not found
