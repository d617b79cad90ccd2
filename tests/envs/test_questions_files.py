"""Files of questions: every format, plain and gzipped, and what is wrong with a broken one."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from cmat_graph.envs import load_env
from cmat_graph.envs.questions.records import read_question
from cmat_graph.errors import TaskFileError

DATA = Path(__file__).parents[3] / "shared" / "data"
PROBLEM = {"problem": "1+1?", "solution": "It is $\\boxed{2}$.", "level": "Level 1", "type": "Algebra"}
WORD = {"question": "3 and 4?", "answer": "#### 7"}


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def splits(path):
    return {task.id: task.split for task in load_env("questions", tasks=path).tasks()}


def test_a_folder_of_math_is_read_as_hendrycks_lays_it_out(tmp_path):
    for split, number in (("train", 1), ("train", 2), ("test", 1)):
        write(tmp_path / "MATH" / split / "algebra" / f"{number}.json", {**PROBLEM, "problem": f"{split} {number}?"})
    (tmp_path / "MATH" / "README.md").write_text("no question")
    env = load_env("questions", tasks=tmp_path / "MATH")
    assert splits(tmp_path / "MATH") == {
        "test/algebra/1": "test",
        "train/algebra/1": "train",
        "train/algebra/2": "train",
    }
    assert env.family == "math"
    assert {task.category for task in env.tasks()} == {"Level 1"}


def test_math_500_gives_the_answer_and_a_level_without_its_word(tmp_path):
    record = {"problem": "Half?", "solution": "no box", "answer": "\\frac{1}{2}", "level": 3, "unique_id": "test/1"}
    env = load_env("questions", tasks=write(tmp_path / "m.jsonl", record))
    (task,) = env.tasks()
    assert (task.id, task.category) == ("test/1", "Level 3")
    session = env.open(task)
    session.step("\\boxed{0.5}")
    assert session.score() == 1


def test_a_split_comes_from_the_record_the_name_or_the_hash(tmp_path):
    own = {**WORD, "id": "own", "split": "test"}
    named = {**WORD, "id": "named", "question": "5 and 2?"}
    assert splits(write(tmp_path / "gsm_train.jsonl", own, named)) == {"own": "test", "named": "train"}
    assert splits(write(tmp_path / "validation.jsonl", named)) == {"named": "validation"}
    many = [{"question": f"{i} and 4?", "answer": str(i + 4)} for i in range(400)]
    drawn = list(splits(write(tmp_path / "contest.jsonl", *many)).values())  # no word of its own in that name
    assert set(drawn) == {"train", "test"}
    assert 160 < drawn.count("test") < 240


def test_a_gzipped_file_and_a_json_list_are_read_alike(tmp_path):
    plain = write(tmp_path / "train.jsonl", WORD, {**WORD, "question": "other?"})
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "train.json").write_text(json.dumps([WORD, {**WORD, "question": "other?"}]))
    assert splits(plain) == splits(tmp_path / "train.jsonl.gz") == splits(tmp_path / "train.json")


@pytest.mark.parametrize(
    ("record", "letter"),
    [
        ({"question": "?", "choices": ["a", "b"], "answer": 1}, "B"),
        ({"question": "?", "choices": ["a", "b"], "answer": "B"}, "B"),
        ({"question": "?", "choices": ["a", "b"], "answer": "b"}, "B"),
        ({"question": "?", "choices": ["x", "y"], "answer": "1"}, "B"),
        ({"question": "?", "choices": ["x", "y"], "answer": "y"}, "B"),
        ({"question": "?", "options": {"A": "x", "B": "y"}, "answer": "B"}, "B"),
        ({"question": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, "B"),
        ({"question": {"stem": "?", "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]},
          "answerKey": "B"}, "B"),
        ({"question": "?", "options": ["A)x", "B)y", "C)z"], "correct": "C"}, "C"),
    ],
)  # fmt: skip
def test_options_come_in_many_shapes(record, letter):
    question = read_question(record)
    assert question.gold == letter
    assert question.prompt.splitlines()[0] == "?"
    assert [line[:3] for line in question.prompt.splitlines()[1:]] == ["(A)", "(B)", "(C)"][
        : question.prompt.count("(")
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: should be an object"),
        ('{"answer": "1"}', "line 2: question: is missing or empty"),
        ('{"question": " ", "answer": "1"}', "question: is missing or empty"),
        ('{"question": "?"}', "answer: is missing or empty"),
        ('{"question": "?", "answer": "#### none"}', "no number follows ####"),
        ('{"problem": "?", "solution": "no box"}', "holds no .boxed"),
        ('{"question": "?", "choices": ["a"], "answer": 0}', "2 to 26 options"),
        ('{"question": "?", "choices": 3, "answer": 0}', "a list of texts"),
        ('{"question": "?", "choices": ["a", "b"], "answer": 2}', "2 is none of the 2 options"),
        ('{"question": "?", "choices": ["a", "b"]}', "None is none of the 2 options"),
        ('{"question": "?", "answer": 1' + "0" * 5000 + "}", "line 2: cannot be read"),
        ('{"id": "twice", "question": "?", "answer": "1"}', "a second question with id 'twice'"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"id": "twice", "question": "1?", "answer": "1"}}\n{line}\n')
    with pytest.raises(TaskFileError, match=message):
        load_env("questions", tasks=path)


def test_a_file_that_is_missing_empty_or_no_text_is_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    for name, message in (
        ("none.jsonl", "no task file at"),
        ("empty.jsonl", "holds no questions"),
        ("binary.jsonl", "cannot read task file"),
        ("cut.jsonl.gz", "cannot read task file"),
    ):
        with pytest.raises(TaskFileError, match=message):
            load_env("questions", tasks=tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(TaskFileError, match="holds no questions"):
        load_env("questions", tasks=tmp_path / "folder")


def test_the_same_question_twice_without_an_id_is_two_tasks(tmp_path):
    env = load_env("questions", tasks=write(tmp_path / "t.jsonl", WORD, WORD))
    assert len({task.id for task in env.tasks()}) == 2


@pytest.mark.parametrize("name", ["arithmetic/problems.jsonl", "gsm8k/test.jsonl", "gsm8k/train.jsonl"])
def test_every_gold_answer_of_the_published_files_is_right_and_no_null_answer_is(name, tmp_path):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no benchmark file at {path}")
    zipped = tmp_path / "zipped.gz"
    with open(path, "rb") as raw, gzip.open(zipped, "wb", compresslevel=1) as out:
        shutil.copyfileobj(raw, out)
    env = load_env("questions", tasks=path)
    assert [task.prompt for task in load_env("questions", tasks=zipped).tasks()] == [t.prompt for t in env.tasks()]
    records = {record["id"]: record for record in map(json.loads, path.read_text(encoding="utf-8").strip().split("\n"))}
    replies = env.demonstrations()
    for task in env.tasks():
        session = env.open(task)
        rewards = []
        for reply in (replies[task.prompt][0], records[task.id]["answer"], "", "OK", "I do not know"):
            session.reset()
            session.step(reply)
            rewards.append(session.score())
        assert rewards == [1, 1, 0, 0, 0], task.id
        assert task.prompt == records[task.id]["question"].strip()
