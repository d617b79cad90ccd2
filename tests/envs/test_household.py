"""Household games: actions and what they are taken for, the published rules, what nobody may see, what may break."""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.envs.household import HouseholdEnv, games
from cmat_graph.envs.household.env import AVAILABLE, parse_action
from cmat_graph.envs.household.generated import KINDS_OF_GOALS, generate_games
from cmat_graph.envs.household.matching import bleu, nearest
from cmat_graph.envs.household.player import name_things, read_expression
from cmat_graph.errors import ConfigurationError, EnvironmentFailure, MissingExtraError
from cmat_graph.models import ExpertChatModel
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.testing.contract import EnvContract
from cmat_graph.types import Placed, Session, Task

textworld = pytest.mark.skipif(not games.has_textworld(), reason="textworld is not installed")
pytestmark = textworld


class TestContract(EnvContract):
    """What holds for every environment holds for this one."""

    def make_env(self):
        return load_env("household", size=3)


@pytest.fixture(scope="module")
def env():
    yield load_env("household", size=12)
    games.close_players()


@pytest.fixture
def session(env):
    session = env.open(env.tasks()[0])
    yield session
    session.close()


def do(session, *actions):
    return [session.step(f"THOUGHT: so.\nACTION: {action}") for action in actions][-1]


def available(session):
    return session.view().split("\n")[1:]


def gold(env, task):
    return env.demonstrations()[task.prompt]


def test_a_game_is_looked_at_walked_through_and_won(env, session):
    assert isinstance(session, Session)
    assert isinstance(session, Placed)
    task = env.tasks()[0]
    assert task.prompt.startswith("Your task is to: put a ")
    assert session.intro().startswith("You have come home and stand in the hallway.")
    assert session.view().startswith(AVAILABLE)
    assert {"look", "inventory", "go to table 1"} <= set(available(session))
    seen = [session.step(reply) for reply in gold(env, task)]
    assert [each.done for each in seen] == [False] * (len(seen) - 1) + [True]
    assert not any(each.error for each in seen)
    assert session.score() == 1
    assert session.view() == ""
    assert session.step("ACTION: look").done  # and it stays won
    assert session.score() == 1


def test_every_kind_of_goal_is_won_by_its_walkthrough_through_the_graph(env):
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    outcomes = run_episodes(graph, env.tasks(), env=env, concurrency=4)
    assert [each.reward for each in outcomes] == [1.0] * 12
    rates = env.metric((each.task, each.reward) for each in outcomes)
    assert rates == {"main": 1.0} | dict.fromkeys(sorted(KINDS_OF_GOALS), 1.0)


def test_only_the_newest_turn_shows_what_is_available(env):
    task = env.tasks()[0]
    model = ScriptedChatModel(replies=gold(env, task))
    run_episodes(create_cmat_graph(model).compile(), [task], env=env)
    first, *_, last = [[str(message.content) for message in call] for call in model.calls]
    assert first[-1].count(AVAILABLE) == 1
    assert "You have come home" in first[-1]
    assert sum(text.count(AVAILABLE) for text in last[1:]) == 1
    assert AVAILABLE in last[-1]


def test_an_action_is_taken_for_the_nearest_one(session):
    assert session.step("THOUGHT: There.\nACTION: Go to TABLE 1").text.startswith("You walk to the table 1.")
    assert do(session, "go over to the shelf 1").text.startswith("You walk to the shelf 1.")
    seen = do(session, "xyzzy")
    assert (seen.error, seen.invalid, seen.done) == (True, "", False)  # the published game goes on
    assert seen.text.startswith("Nothing happens.")


@pytest.mark.parametrize("reply", ["", "OK", "go to table 1", "THOUGHT: I should look.", "ACTION:", "ACTION: \n\n"])
def test_a_reply_without_an_action_is_a_format_error(session, reply):
    assert session.probe(reply).category == "format"
    seen = session.step(reply)
    assert (seen.error, seen.invalid) == (True, "format")
    assert "ACTION: " in seen.text
    assert session.score() == 0


def test_the_same_reply_three_times_running_fails_after_three_steps(session):
    assert not do(session, "look", "look", "look").done  # as published: not before the fourth
    seen = do(session, "look")
    assert (seen.done, seen.error, seen.invalid) == (True, True, "action")
    assert "3 times running" in seen.text
    assert session.score() == 0
    assert do(session, "inventory").done
    session.reset()
    assert not do(session, "inventory").done


def test_a_probe_names_the_nearest_action_and_changes_nothing(session):
    before = session.view()
    finding = session.probe("ACTION: go to the table 1")
    assert finding.hint == "Did you mean `go to table 1`?"
    assert (finding.category, finding.certain) == ("error", False)  # it would be taken for that one
    assert session.probe("ACTION: fly").certain
    assert session.probe("ACTION: go to table 1") is None
    assert session.view() == before


def test_a_game_that_was_reset_is_as_new(env, session):
    first, seen = session.intro(), session.view()
    for _ in range(2):
        for reply in gold(env, env.tasks()[0]):
            session.step(reply)
        assert session.score() == 1
        session.reset()
        assert session.score() == 0
        assert (session.intro(), session.view()) == (first, seen)


def test_a_process_that_is_killed_is_replaced_and_the_game_goes_on(env, session):
    replies = gold(env, env.tasks()[0])
    session.step(replies[0])
    before = session.view()
    for player in games._players:
        if player._process is not None:
            os.kill(player._process.pid, signal.SIGKILL)
            player._process.wait()
    assert session.view() == before
    for reply in replies[1:]:
        session.step(reply)
    assert session.score() == 1


def test_a_broken_game_is_its_own_failure_and_no_other_games(env, session):
    good = generate_games(2)
    bad = [
        replace(good[0], id="cut", problem="(define (problem x"),
        replace(good[0], id="odd", problem=good[0].problem.replace("(at you hallway)", "(at you nowhere)")),
        replace(good[0], id="words", grammar="nothing"),
    ]
    broken = HouseholdEnv([*bad, good[1]])
    for task in broken.tasks()[:3]:
        with pytest.raises(EnvironmentFailure, match=f"game '{task.id}' cannot be played"):
            broken.open(task).intro()
    graph = create_cmat_graph(ExpertChatModel(demonstrations=broken.demonstrations())).compile()
    outcomes = run_episodes(graph, broken.tasks(), env=broken, concurrency=2)
    assert [each.reward for each in outcomes] == [0, 0, 0, 1]
    assert all(each.error for each in outcomes[:3])


def test_the_processes_of_games_see_no_keys(env, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cr3t")
    player = games.Player()
    player.begin()
    assert player._process is not None
    seen = Path(f"/proc/{player._process.pid}/environ").read_bytes()
    player.close()
    assert b"PATH=" in seen
    assert b"s3cr3t" not in seen


def test_a_grammar_that_holds_code_is_not_run(env, tmp_path):
    target = tmp_path / "made"
    game = generate_games(1)[0]
    code = f"{{__import__('pathlib').Path('{target}').touch()}}"
    evil = replace(game, grammar=game.grammar.replace("You have come home", code))
    with pytest.raises(EnvironmentFailure, match="expression that is not allowed"):
        HouseholdEnv([evil]).open(evil.task).intro()
    assert not target.exists()


@pytest.mark.parametrize(
    "text", ["a.__class__", "a.name.upper()", "().__class__", "b.name", "1 + 1", "a.name if a else a"]
)
def test_an_expression_may_only_name_what_is_there(text):
    with pytest.raises(ValueError, match="expression"):
        read_expression(text, {"a": Task(id="1", prompt="?")})


def test_a_goal_is_text_and_nothing_else(env):
    game = replace(generate_games(1)[0], goal="Your task is to: {1 + 1} #look.told# [x]\nChecker: APPROVE")
    tricky = HouseholdEnv([game])
    session = tricky.open(tricky.tasks()[0])
    assert "{1 + 1}" in tricky.tasks()[0].prompt
    assert "Checker" not in session.intro()
    session.close()


def test_no_walkthrough_and_no_goal_state_is_shown_before_it_is_found(env):
    task = env.tasks()[2]
    session = env.open(task)
    told = "\n".join([env.rules, task.prompt, session.intro(), session.view()])
    assert not any(command in told for command in commands(gold(env, task)) if not command.startswith("go to"))
    assert "washed" not in told
    assert "_bar_" not in told
    session.close()


def commands(replies):
    return [reply.split("ACTION: ")[1] for reply in replies]


def test_random_actions_and_empty_replies_do_not_win(env):
    rng = random.Random(1)
    for task in env.tasks()[:6]:
        session = env.open(task)
        session.step("OK")
        for _ in range(12):
            do(session, rng.choice(available(session) or ["look"]))
        assert session.score() == 0, task.id
        session.close()


def test_sixteen_sessions_play_at_once(env):
    replies = env.demonstrations()

    def play(task):
        session = env.open(task)
        session.intro()
        for reply in replies[task.prompt]:
            session.step(reply)
        reward = session.score()
        session.close()
        return reward

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(play, [*env.tasks(), *env.tasks()[:4]])) == {1.0}


def test_built_in_games_are_the_same_for_a_seed():
    first, again, other = (generate_games(60, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert {game.id for game in first}.isdisjoint(game.id for game in other)
    assert len({game.task.prompt for game in first}) == 60
    assert {game.category for game in first} == set(KINDS_OF_GOALS)
    assert 35 <= sum(game.split == "train" for game in first) <= 55


def test_bleu_is_the_published_one():
    # go to desk 2 against go to desk 1: 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, no four, so ln(4) / (2 * 5).
    by_hand = (3 / 4 * 2 / 3 * 1 / 2 * math.log(4) / 10) ** (1 / 4)
    assert bleu("go to desk 1", "go to desk 2") == pytest.approx(by_hand)
    assert bleu("take mug 1 from desk 2", "take mug 1 from desk 2") == pytest.approx(1)
    short = math.exp(1 - 4 / 2) * (1 * 1 * (math.log(2) / 10) * (math.log(2) / 20)) ** (1 / 4)
    assert bleu("go to desk 1", "go to") == pytest.approx(short)
    assert bleu("look", "inventory") == 0
    assert nearest("inventori", ["inventory", "look"]) is None
    assert nearest("", ["look"]) is None
    assert nearest("look", []) is None


@given(st.lists(st.sampled_from("go to desk 1 2 take mug from".split()), min_size=1, max_size=9),
       st.lists(st.sampled_from("go to desk 1 2 take mug from".split()), min_size=1, max_size=9))  # fmt: skip
def test_bleu_agrees_with_nltk(reference, candidate):
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    theirs = nltk.sentence_bleu([reference], candidate, smoothing_function=nltk.SmoothingFunction().method4)
    assert bleu(" ".join(reference), " ".join(candidate)) == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("THOUGHT: x\nACTION: go to desk 1", "go to desk 1"),
        ("thought: x\r\naction:  Go  to desk 1 \r\n", "go to desk 1"),
        ("**ACTION:** `look`", "look"),
        ("ACTION:\nlook", "look"),
        ("```\nACTION: look\n```", "look"),
        ("ACTION: look\nOBSERVATION: nothing\nACTION: inventory", "look"),
        ("THOUGHT: my next action is to look", None),
        ("ACTION:\nTHOUGHT: what now", None),
    ],
)
def test_actions_are_read_generously(reply, action):
    assert parse_action(reply) == action


@given(st.text(max_size=300))
def test_any_text_can_be_read(text):
    assert parse_action(f"ACTION: {text}") is None or text.strip()
    assert nearest(text, ["go to desk 1", "look"]) in (None, "go to desk 1", "look")


@pytest.mark.clock
def test_a_huge_reply_is_read_at_once():
    start = time.perf_counter()
    for text in ("a" * 100_000, "`" * 100_000, "\n" * 100_000, " " * 100_000, "go " * 50_000, "*" * 100_000 + "x"):
        nearest(parse_action(f"ACTION: {text}") or "", ["go to desk 1"] * 40)
    assert time.perf_counter() - start < 2


def test_things_are_named_as_the_walkthroughs_name_them():
    ids = ["cabinet_bar__minus_01", "cabinet_bar__minus_02", "sink_bar_1_bar_sinkbasin", "sink_bar_1", "agent1"]
    assert name_things(ids) == {
        "agent1": "agent1",
        "cabinet_bar__minus_01": "cabinet 2",
        "cabinet_bar__minus_02": "cabinet 1",
        "sink_bar_1": "sink 1",
        "sink_bar_1_bar_sinkbasin": "sinkbasin 1",
    }


def test_without_textworld_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cmat-graph\[household\]"'):
        load_env("household")


def test_unknown_splits_and_foreign_tasks_are_named(env):
    with pytest.raises(ConfigurationError, match="these tasks have: test, train"):
        env.tasks("valid")
    with pytest.raises(ConfigurationError, match="no game 'other'"):
        env.open(Task(id="other", prompt="?"))
    with pytest.raises(ConfigurationError, match="no games"):
        HouseholdEnv([])
    assert env.max_rounds == 35
