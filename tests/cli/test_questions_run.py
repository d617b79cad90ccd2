"""`cmat-graph run --env questions`: files of every kind, the expert and the small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("name", ["arithmetic/problems.jsonl", "gsm8k/test.jsonl"])
def test_the_expert_plays_a_published_file_without_a_fault(name, call):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no benchmark file at {path}")
    code, out, _ = call("run", "--env", "questions", "--tasks", path, "--assistant", "expert", "--limit", 40, "--json")
    result = json.loads(out)
    assert (code, result["episodes"], result["success_rate"], result["score"]["main"]) == (0, 40, 1.0, 1.0)


def test_the_expert_plays_a_folder_of_math_and_is_scored_by_level(call, tmp_path):
    for number, answer in enumerate(["\\frac{1}{2}", "(-\\infty,3]", "\\text{Yes}", "2\\sqrt{3}"]):
        file = tmp_path / "MATH" / "test" / "algebra" / f"{number}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        solution = f"So $\\boxed{{{answer}}}$."
        record = {
            "problem": f"Problem {number}?",
            "solution": solution,
            "level": f"Level {number % 2}",
            "type": "Algebra",
        }
        file.write_text(json.dumps(record))
    code, out, _ = call("run", "--env", "questions", "--tasks", tmp_path / "MATH", "--assistant", "expert", "--json")
    assert code == 0
    assert json.loads(out)["score"] == {"main": 1.0, "Algebra": 1.0, "Level 0": 1.0, "Level 1": 1.0}


@pytest.mark.slow
def test_the_small_model_plays_builtin_questions(call):
    pytest.importorskip("torch", reason="the extra `local` is not installed")
    code, out, _ = call("run", "--env", "questions", "--assistant", "nano", "--size", 4, "--json")
    assert code == 0
    assert json.loads(out)["episodes"] == 4


def test_a_split_that_is_not_there_is_named(call):
    code, _, err = call("run", "--env", "questions", "--split", "dev", "--assistant", "expert", "--size", 4)
    assert code == 1
    assert "there are splits test, train" in err
