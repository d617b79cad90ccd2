"""Files of household games: ALFWorld's format, its walkthroughs, and what is wrong with a broken file."""

from __future__ import annotations

import gzip
import json
import re
import shutil

import pytest
from shared_data import DATA

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.envs.household import games
from cmat_graph.envs.household.generated import generate_games
from cmat_graph.errors import TaskFileError
from cmat_graph.models import ExpertChatModel

pytestmark = pytest.mark.skipif(not games.has_textworld(), reason="textworld is not installed")
HOME = generate_games(1)[0]
RECORD = {
    "id": "valid/put/trial_1",
    "split": "valid_unseen",
    "task_type": "pick_and_place_simple",
    "goal": HOME.goal,
    "pddl_problem": HOME.problem,
    "walkthrough": list(HOME.walkthrough),
    "agentbench": ["std"],
}


@pytest.fixture(scope="module", autouse=True)
def players():
    yield
    games.close_players()


def write(path, *records, beside=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(record)}\r\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    if beside:
        (path.parent / "domain.pddl").write_text(HOME.domain)
        (path.parent / "grammar.twl2.txt").write_text(HOME.grammar.replace("#places#.", "#places#.\\n\\n@@TASK@@"))
    return path


def gold_outcomes(env, tasks):
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    return run_episodes(graph, tasks, env=env, concurrency=4)


def shared(name):
    path = DATA / "alfworld" / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no household games at {path}")
    return path


def test_a_gzipped_file_is_played_with_what_lies_beside_it(tmp_path):
    env = load_env("household", tasks=write(tmp_path / "games.jsonl.gz", RECORD))
    (task,) = env.tasks("valid_unseen")
    assert task.category == "pick_and_place_simple"
    assert re.fullmatch(re.escape(HOME.goal) + r"\nGame: [0-9a-f]{8}", task.prompt)
    assert [each.reward for each in gold_outcomes(env, [task])] == [1]


def test_the_rules_are_looked_for_beside_the_games_then_in_data(tmp_path):
    path = write(tmp_path / "here" / "games.jsonl", RECORD, beside=False)
    with pytest.raises(TaskFileError, match=r"needs domain\.pddl"):
        load_env("household", tasks=path)
    write(tmp_path / "there" / "games.jsonl", RECORD)
    assert len(load_env("household", tasks=path, data=str(tmp_path / "there")).tasks()) == 1


def test_a_split_comes_from_the_record_the_name_or_the_hash(tmp_path):
    plain = {key: value for key, value in RECORD.items() if key != "split"}

    def splits(name, *records):
        return [task.split for task in load_env("household", tasks=write(tmp_path / name, *records)).tasks()]

    assert splits("train.jsonl", RECORD, {**plain, "id": "b"}) == ["valid_unseen", "train"]
    drawn = splits("games.jsonl", *({**plain, "id": str(i)} for i in range(100)))
    assert 60 < drawn.count("train") < 90


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ("3", "line 2: should be an object"),
        ('{"id": "x"}', "line 2: goal: Field required"),
        (json.dumps({**RECORD, "id": "x", "pddl_problem": ""}), "line 2: pddl_problem"),
        (json.dumps({**RECORD, "id": "x", "walkthrough": "look"}), "line 2: walkthrough"),
        (json.dumps(RECORD), "line 2: a second game with id"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = write(tmp_path / "games.jsonl", RECORD)
    path.write_text(path.read_text() + line)
    with pytest.raises(TaskFileError, match=re.escape(message)):
        load_env("household", tasks=path)


def test_an_empty_file_and_an_empty_domain_are_named(tmp_path):
    with pytest.raises(TaskFileError, match="holds no games"):
        load_env("household", tasks=write(tmp_path / "a" / "games.jsonl"))
    path = write(tmp_path / "b" / "games.jsonl", RECORD)
    (tmp_path / "b" / "domain.pddl").write_text("")
    with pytest.raises(TaskFileError, match="is empty"):
        load_env("household", tasks=path)


def test_games_that_read_alike_have_prompts_of_their_own():
    for name in ("valid_unseen", "valid_seen", "train"):
        env = load_env("household", tasks=shared(name))
        assert len(env.demonstrations()) == len(env.tasks()) == len({task.prompt for task in env.tasks()})
        assert all("trial" not in task.prompt for task in env.tasks())


def test_walkthroughs_of_alfworld_win(tmp_path):
    env = load_env("household", tasks=shared("valid_unseen"))
    outcomes = gold_outcomes(env, env.tasks()[:1])
    assert [each.reward for each in outcomes] == [1]
    session = env.open(env.tasks()[0])
    intro = session.intro()
    assert intro.startswith("You are in the middle of a room.")
    assert "TextWorld" not in intro
    assert "Your task" not in intro + session.view()
    session.close()


@pytest.mark.slow
def test_every_walkthrough_of_the_unseen_houses_wins_and_a_sample_of_the_others():
    for name, step in (("valid_unseen", 1), ("valid_seen", 20), ("train", 100)):
        env = load_env("household", tasks=shared(name))
        outcomes = gold_outcomes(env, env.tasks()[::step])
        assert {each.reward for each in outcomes} == {1.0}


def test_a_plain_copy_of_a_gzipped_file_is_the_same(tmp_path):
    path = shared("valid_unseen")
    plain = tmp_path / "valid_unseen.jsonl"
    with gzip.open(path, "rb") as zipped, open(plain, "wb") as out:
        shutil.copyfileobj(zipped, out)
    one, other = load_env("household", tasks=path), load_env("household", tasks=plain, data=str(path.parent))
    assert one.tasks() == other.tasks()
