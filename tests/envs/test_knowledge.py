"""Questions over a knowledge graph: what the tools do, what they refuse, what nobody may see."""

from __future__ import annotations

import random
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs.knowledge import KnowledgeEnv, open_env
from cmat_graph.envs.knowledge.calls import TOOLS, FinalAnswer, ToolCall, Unreadable, parse_reply
from cmat_graph.envs.knowledge.generated import generate_questions
from cmat_graph.envs.knowledge.records import Question
from cmat_graph.errors import ConfigurationError
from cmat_graph.models import ExpertChatModel
from cmat_graph.testing.contract import EnvContract
from cmat_graph.types import Placed, Session, Task

TRIPLES = (
    ("m.ilo", "town.river", "m.CANARY-river"),
    ("m.ilo", "town.natives", "m.ann"),
    ("m.ilo", "town.natives", "m.CANARY-bob"),
    ("m.ilo", "town.natives", "m.cay"),
    ("m.weaver", "trade.workers", "m.CANARY-bob"),
    ("m.weaver", "trade.workers", "m.dee"),
    ("m.weaver", "trade.tools", "m.loom"),
    ("common.topic", "thing.example", "m.ann"),
)
AGES = (("m.ann", "person.age", 30), ("m.CANARY-bob", "person.age", 60), ("m.cay", "person.age", 30))
RANGES = {"town.river": "river", "town.natives": "person", "trade.workers": "person", "trade.tools": "tool",
          "thing.example": "thing.like"}  # fmt: skip
PROGRAM = (
    ("get_relations", "Ilo (port, old)"),
    ("get_neighbors", "Ilo (port, old)", "town.natives"),
    ("get_relations", "Weaver"),
    ("get_neighbors", "Weaver", "trade.workers"),
    ("intersection", "#0", "#1"),
)


def question(**changes):
    fields = {
        "id": "q",
        "text": "Which weaver was born in Ilo?",
        "entities": {"Ilo (port, old)": "m.ilo", "Weaver": "m.weaver"},
        "gold": frozenset({"m.CANARY-bob"}),
        "program": PROGRAM,
        "category": "own",
        "split": "test",
        "triples": TRIPLES,
        "attributes": AGES,
        "ranges": RANGES,
    }
    return Question(**fields | changes)


class TestContract(EnvContract):
    """What holds for every environment holds for this one."""

    def make_env(self):
        return open_env(size=40)


@pytest.fixture
def env():
    return KnowledgeEnv([question()])


@pytest.fixture
def session(env):
    return env.open(env.tasks()[0])


def do(session, *actions):
    return [session.step(f"Thought: so.\nAction: {action}") for action in actions][-1]


def born(session):
    """Make #0 the natives of Ilo."""
    return do(session, "get_relations(Ilo (port, old))", "get_neighbors(Ilo (port, old), town.natives)")


def test_two_conditions_are_walked_to_and_intersected(env, session):
    assert isinstance(session, Session)
    assert not isinstance(session, Placed)
    assert env.tasks()[0].prompt == "Question: Which weaver was born in Ilo?\nEntities: [Ilo (port, old), Weaver]"
    seen = [session.step(reply) for reply in env.demonstrations()[env.tasks()[0].prompt]]
    assert [each.text for each in seen] == [
        "[town.natives, town.river]",
        "Variable #0, which are instances of person",
        "[trade.tools, trade.workers]",
        "Variable #1, which are instances of person",
        "Variable #2, which are instances of person",
        "",
    ]
    assert seen[-1].done
    assert session.score() == 1


def test_a_wider_or_narrower_variable_scores_its_f1(session):
    born(session)
    assert session.step("Final Answer: #0").done
    assert session.score() == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert session.score() == pytest.approx(0.5)


def test_the_most_and_the_least_take_all_that_tie(session):
    born(session)
    assert do(session, "get_attributes(#0)").text == "[person.age]"
    do(session, "argmax(#0, person.age)", "argmin(#0, person.age)", "count(#2)")
    session.step("Final Answer: #1")
    assert session.score() == 1  # the canary is the oldest
    least = KnowledgeEnv([question(gold=frozenset({"m.ann", "m.cay"}))])
    session = least.open(least.tasks()[0])
    born(session)
    do(session, "get_attributes(#0)", "argmin(#0, person.age)")
    session.step("Final Answer: #1")
    assert session.score() == 1


def test_a_count_is_answered_with_its_number():
    env = KnowledgeEnv([question(gold=frozenset({"3"}))])
    session = env.open(env.tasks()[0])
    born(session)
    assert do(session, "count(#0)").text == "Variable #1, which is a number"
    assert session.step("Thought: done.\nFinal Answer: #1").done
    assert session.score() == 1
    for action in ("get_relations(#1)", "count(#1)", "intersection(#0, #1)"):
        assert "#1 is a number" in do(session, action).text


@pytest.mark.parametrize(
    ("action", "text", "hint"),
    [
        ("get_neighbors(Weaver, trade.workers)", "not known yet", "get_relations(Weaver)"),
        ("get_neighbors(Ilo (port, old), town.nativs)", "no relation `town.nativs`", "Did you mean `town.natives`?"),
        ("get_neighbors(Ilo (port, old), trade.workers)", "no relation", "It has: town.natives, town.river."),
        ("argmax(#0, person.age)", "The attributes of #0 are not known yet", "get_attributes(#0)"),
        ("get_relations(#4)", "no variable `#4`", "There is #0."),
        ("get_relations(weever)", "`weever` is no entity", "Did you mean `Weaver`?"),
        ("get_relations(m.weaver)", "no entity", "Did you mean `Weaver`?"),
        ("get_relations(m.ann)", "no entity", "or a variable such as #0"),
        ("intersection(#0)", "takes #i, #j", "Write intersection(#i, #j)"),
        ("count(Weaver)", "no variable `Weaver`", "There is #0."),
        ("get_neighbours(#0, x)", "no tool", "Did you mean `get_neighbors`?"),
        ("drop(#0)", "no tool", "The tools are: get_relations"),
    ],
)
def test_a_probe_names_what_is_wrong_and_changes_nothing(session, action, text, hint):
    born(session)
    finding = session.probe(f"Action: {action}")
    assert text in finding.text
    assert hint in finding.hint
    assert finding.category == "error"
    seen = do(session, action)
    assert (seen.error, seen.invalid, seen.done) == (True, "action", False)
    assert text in seen.text
    assert do(session, "count(#0)").text.startswith("Variable #1")  # nothing was kept of it


@pytest.mark.parametrize(
    "reply",
    ["", "OK", "I think it is Bob.", "Action:", "Action: Weaver", "Action: get_relations(", "Final Answer: Bob"],
)
def test_a_reply_without_an_action_is_a_format_error_and_scores_nothing(session, reply):
    assert session.probe(reply).category == "format"
    seen = session.step(reply)
    assert (seen.error, seen.invalid) == (True, "format")
    assert "Final Answer: #id" in seen.text
    assert session.score() == 0


def test_a_hint_names_no_relation_that_was_not_listed(session):
    finding = session.probe("Action: get_neighbors(Weaver, trade.worker)")
    assert "trade.workers" not in finding.text + finding.hint
    do(session, "get_relations(Weaver)")
    assert "trade.workers" in session.probe("Action: get_neighbors(Weaver, trade.worker)").hint


def test_variables_of_other_types_intersect_only_where_they_share_a_node(session):
    born(session)
    do(session, "get_relations(Weaver)", "get_neighbors(Weaver, trade.tools)")
    refused = do(session, "intersection(#0, #1)")
    assert refused.invalid == "action"
    assert "not of the same type: person and tool" in refused.text
    do(session, "get_relations(common.topic)", "get_neighbors(common.topic, thing.example)")
    assert do(session, "intersection(#0, #2)").text == "Variable #3, which are instances of person"


def test_a_session_that_was_reset_is_as_new(session):
    born(session)
    session.step("Final Answer: #0")
    session.reset()
    assert session.score() == 0
    assert "no variable" in do(session, "count(#0)").text
    assert "not known yet" in do(session, "get_neighbors(Weaver, trade.workers)").text


def test_no_node_is_ever_shown(env, session):
    told = [env.rules, env.tasks()[0].prompt]
    actions = [reply for replies in env.demonstrations().values() for reply in replies]
    tries = ("get_attributes(#0)", "argmax(#0, person.age)", "get_neighbors(#0, m.C)", "get_relations(m.CANARY)")
    actions += [f"Action: {each}" for each in (*tries, "count(#0)", "count(#99)")]
    for action in actions:
        finding = session.probe(action)
        told += [finding.text, finding.hint] if finding else []
        told.append(session.step(action).text)
    said = [text for text in told if "m.CANARY" not in text or "`m.CANARY`" in text]  # its own words come back
    assert len(said) == len(told)
    assert not re.search(r"m\.(?!C)\w", "\n".join(told))


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("Thought: x\nAction: get_relations(Goat)", ToolCall("get_relations", ("Goat",))),
        ("ACTION:get_relations( Goat )\r\n", ToolCall("get_relations", ("Goat",))),
        ("**Action**: `count(#0)`", ToolCall("count", ("#0",))),
        ("Action:\n```\ncount(#0)\n```", ToolCall("count", ("#0",))),
        ("Action: ```python\ncount(#0)```", ToolCall("count", ("#0",))),
        ("Action: ```count(#0)```", ToolCall("count", ("#0",))),
        ("Action: get_neighbors(No, no, a.b)", ToolCall("get_neighbors", ("No, no", "a.b"))),
        ("Action: get_neighbors(Messiah (1742), a.b) next", ToolCall("get_neighbors", ("Messiah (1742)", "a.b"))),
        ("Action: get_neighbors(a :), x.y)", ToolCall("get_neighbors", ("a :",))),
        ("Action 1: intersection(#0,#1)", ToolCall("intersection", ("#0", "#1"))),
        ("Action: get\\_relations(x)", ToolCall("get_relations", ("x",))),
        ("Action: count(#0)\nObservation: 3\nFinal Answer: #1", ToolCall("count", ("#0",))),
        ("Action: count(#0)\nFinal Answer: #1", FinalAnswer(1)),
        ("final answer: variable #12.", FinalAnswer(12)),
        ("Final Answer: 3", Unreadable("no variable")),
        ("Final Answer: #1234567", Unreadable("no variable")),
        ("An action would be count(#0)", Unreadable("no action")),
        ("Action: none", Unreadable("no call")),
    ],
)
def test_replies_are_read_generously_but_for_one_meaning(reply, read):
    assert parse_reply(reply) == read


@given(st.text() | st.from_regex(r"(Action|Final Answer): ?#?\w*\([^\n]{0,20}\)?"))
def test_any_text_is_answered_and_none_breaks_the_session(text):
    env = KnowledgeEnv([question()])
    session = env.open(env.tasks()[0])
    session.probe(text)
    assert session.step(text).text is not None
    assert 0 <= session.score() <= 1


@pytest.mark.clock
def test_a_huge_reply_is_read_at_once(session):
    start = time.perf_counter()
    long = ("count(" + "(" * 200_000, "```" + "a" * 100_000, "```\n" + "\n" * 100_000, "`*" * 50_000, " " * 100_000)
    texts = [f"Action: {each}" for each in (*long, "get_relations(" + "x" * 300_000 + ")")]
    for text in (*texts, "Action" * 100_000, "Final Answer: " * 20_000, "*" * 100_000):
        assert len(session.step(text).text) < 1_000
    assert time.perf_counter() - start < 2


def test_the_metric_tells_f1_exact_matches_and_what_could_be_executed():
    env = KnowledgeEnv([question(id=id, text=id, category=id[0]) for id in ("a1", "a2", "b1")])
    tasks = env.tasks()
    rewards = []
    for task, answer in zip(tasks, ("Final Answer: #2", "Final Answer: #0", "OK"), strict=True):
        session = env.open(task)
        for reply in env.demonstrations()[task.prompt][:-1]:
            session.step(reply)
        session.step(answer)
        rewards.append((task, session.score()))
    assert env.metric(rewards) == {
        "main": pytest.approx(0.5),
        "exact match": pytest.approx(1 / 3),
        "executability": pytest.approx(2 / 3),
        "a": 0.75,
        "b": 0,
    }
    assert "executability" not in KnowledgeEnv([question(id="a1")]).metric([(tasks[0], 1.0)])
    assert env.metric([]) == {"main": 0}


def test_built_in_questions_are_the_same_for_a_seed_and_many_for_a_size():
    first, again, other = (generate_questions(120, seed=seed) for seed in (7, 7, 8))
    assert [(q.text, q.gold, q.split) for q in first] == [(q.text, q.gold, q.split) for q in again]
    assert {q.text for q in first} != {q.text for q in other}
    assert len({q.task.prompt for q in first}) == 120
    assert {"1-hop", "2-hop", "3-hop", "count", "argmax", "argmin", "intersection"} <= {q.category for q in first}
    assert 60 <= sum(q.split == "train" for q in first) <= 110


def test_built_in_gold_plays_through_the_graph_to_full_marks():
    env = open_env(size=60)
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
    outcomes = run_episodes(graph, env.tasks(), env=env, concurrency=2)
    assert [each.reward for each in outcomes] == [1.0] * 60
    assert env.metric((each.task, each.reward) for each in outcomes)["executability"] == 1


def test_random_legal_actions_score_little():
    env = open_env(size=100)
    rng = random.Random(0)
    rewards = [played_at_random(env, task, rng) for task in env.tasks()]
    assert sum(rewards) / len(rewards) < 0.25
    assert all(0 <= reward <= 1 for reward in rewards)


def played_at_random(env, task, rng):
    session = env.open(task)
    start = rng.choice(re.search(r"Entities: \[(.*)\]", task.prompt).group(1).split(", "))
    for at in range(rng.randint(1, 3)):
        relations = do(session, f"get_relations({start})").text.strip("[]").split(", ")
        do(session, f"get_neighbors({start}, {rng.choice(relations)})")
        start = f"#{at}"
    session.step(f"Final Answer: {start}")
    return session.score()


def test_sixteen_sessions_play_at_once():
    env = open_env(size=64)
    replies = env.demonstrations()

    def play(task):
        session = env.open(task)
        for _ in range(3):
            session.reset()
            for reply in replies[task.prompt]:
                session.step(reply)
        return session.score()

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(play, env.tasks())) == {1.0}


def test_unknown_splits_and_foreign_tasks_are_named(env):
    with pytest.raises(ConfigurationError, match="these tasks have: test"):
        env.tasks("train")
    with pytest.raises(ConfigurationError, match="no question 'other'"):
        env.open(Task(id="other", prompt="?"))
    with pytest.raises(ConfigurationError, match="no questions"):
        KnowledgeEnv([])


def test_the_rules_name_every_tool(env):
    assert all(tool in env.rules for tool in TOOLS)
    assert env.max_rounds == 15
