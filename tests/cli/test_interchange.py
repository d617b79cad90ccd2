"""`traces import` and `dataset export`, as a shell sees them."""

from __future__ import annotations

import json
from pathlib import Path

from cmat_graph.cli import export, imports
from cmat_graph.traces.imports import FORMS as IMPORTS
from cmat_graph.tuning.interchange import FORMS as EXPORTS

LANGFUSE = Path(__file__).parents[1] / "traces" / "imports" / "langfuse"


def test_the_forms_of_the_help_are_those_there_are():
    assert tuple(IMPORTS) == imports.FORMS
    assert tuple(EXPORTS) == export.FORMS


def test_what_langfuse_exported_can_be_looked_at(call):
    code, out, _ = call("traces", "import", LANGFUSE, "--format", "langfuse", "--run", "june", "--json")
    assert code == 0
    assert json.loads(out) == {"episodes": 1, "steps": 2, "left_out": {}}
    assert "What is 2+3?" in call("traces", "show", "--run", "june")[1]
    code, out, err = call("traces", "import", LANGFUSE, "--format", "langfuse")
    assert (code, out.split()[0]) == (0, "0")
    assert "1 traces that were imported before" in err


def test_an_import_of_nothing_names_the_fix(call):
    code, _, err = call("traces", "import", "nothing.jsonl", "--format", "langsmith")
    assert code == 1
    assert "export the traces first" in err


def test_a_dataset_is_exported(call, tmp_path):
    message = {"role": "assistant", "content": "Four.", "weight": 1.0}
    row = {
        "messages": [{"role": "user", "content": "2 + 2?"}, message],
        "tools": [],
        "kind": "turn",
        "origin": {"task_id": "1", "episodes": []},
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sft.train.jsonl").write_text(json.dumps(row))
    (tmp_path / "data" / "manifest.json").write_text('{"sha256": "0", "rows": {"sft.train": 1}}')
    code, out, _ = call("dataset", "export", "data", "--format", "openai", "--out", "out", "--json")
    assert code == 0
    (file,) = json.loads(out)
    assert json.loads(Path(file).read_text())["messages"][-1] == message | {"weight": 1}


def test_a_dataset_that_is_not_there_is_named(call):
    code, _, err = call("dataset", "export", "nowhere", "--format", "trl", "--out", "out")
    assert code == 1
    assert "no dataset in nowhere" in err
