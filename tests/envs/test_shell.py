"""Shell tasks as an environment: what is read, what is run, what is right, and what nobody may see."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from shared_data import DATA

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.envs.shell import generate_records
from cmat_graph.envs.shell.judging import same
from cmat_graph.envs.shell.records import Record
from cmat_graph.envs.shell.replies import answer, clean, cut, finish, operation, parse_reply
from cmat_graph.envs.shell.starting import choose
from cmat_graph.errors import ConfigurationError, TaskFileError
from cmat_graph.models import ExpertChatModel
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.types import Placed, Session

pytestmark = pytest.mark.clock
FILE = DATA / "os_interaction" / "tasks.jsonl"
COUNT = {
    "id": "count",
    "description": "How many lines does ~/list.txt have?",
    "check": "integer",
    "answer": "3",
    "split": "dev",
    "state": {"files": [{"path": "/root/list.txt", "type": "file", "mode": "0644", "text": "a\nb\nc\n"}]},
    "session": {"cwd": "/", "home": "/root"},
}
MODES = {
    "id": "modes",
    "description": "Set ~/videos to 750 and its files to 660.",
    "check": "post",
    "post": {"tree": "/root/videos", "dir_mode": "0750", "file_mode": "0660"},
    "split": "dev",
    "state": {
        "files": [
            {"path": "/root/videos", "type": "dir", "mode": "0755"},
            {"path": "/root/videos/a", "type": "file", "mode": "0644", "text": "x"},
        ]
    },
}
DO_MODES = "chmod 750 ~/videos; chmod 660 ~/videos/a"


@pytest.fixture(scope="module", autouse=True)
def sandbox():
    try:
        return choose("auto")
    except ConfigurationError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def load(tmp_path):
    def write(*records, **options):
        path = tmp_path / "tasks.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return load_env("os", tasks=path, **options)

    return write


def opened(env, task_id=None):
    return env.open(next(task for task in env.tasks() if task_id in (None, task.id)))


def played(env, *replies, task_id=None):
    session = opened(env, task_id)
    try:
        for reply in replies:
            session.step(reply)
        return session.score()
    finally:
        session.close()


# -- replies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        ("Think: look\n\nAct: bash\n\n```bash\nls\n```", "bash", "ls"),
        ("Think: look\r\nAct: bash\r\n```bash\r\nls\r\npwd\r\n```", "bash", "ls\npwd"),
        ("act:BASH\n```sh\nls\n```", "bash", "ls"),
        ("Act: bash\n```\nls\n```", "bash", "ls"),
        ("Act: bash\n```bash\nls\n```\nand\n```bash\npwd\n```", "bash", "ls\n\npwd"),
        ("Act: bash\n```bash\ncat <<E\nAct: finish\nE\n```", "bash", "cat <<E\nAct: finish\nE"),
        ("Act: bash\n```bash\n```", "missing", ""),
        ("Act: bash", "missing", ""),
        ("**Act:** finish", "finish", ""),
        ("Think: so\nAct: finish.", "finish", ""),
        ("Act: answer(42)", "answer", "42"),
        ("Act: Answer( a (b) c )", "answer", "a (b) c"),
        ("Act: answer()", "answer", ""),
        ("Act: answer(1)\nAct: answer(2)", "answer", "2"),
        ("Act: answer(1)\nAct: dance", "answer", "1"),  # the last valid one
        ("Act: answer 42", "unknown", ""),
        ("Act: python\n```python\n1\n```", "unknown", ""),
        ("OK", "missing", ""),
        ("", "missing", ""),
        ("```bash\nls\n```", "missing", ""),
    ],
)
def test_the_last_valid_act_wins_and_all_blocks_are_joined(reply, kind, text):
    assert parse_reply(reply) == (kind, text)


@given(st.text())
def test_any_text_can_be_read(reply):
    assert parse_reply(reply).kind in ("bash", "finish", "answer", "unknown", "missing")


@given(st.text(alphabet="abc $|'\"\\;#=()[]{}\n", min_size=1).filter(lambda text: text.strip()))
def test_what_is_written_is_what_is_read(script):
    assert parse_reply(operation(script, "so")) == ("bash", script.strip("\n"))
    assert parse_reply(finish("so")).kind == "finish"
    line = script.replace("\n", " ").strip()
    assert parse_reply(answer(line, "so")) == ("answer", line)


@given(st.binary())
def test_any_output_becomes_plain_text(output):
    text = clean(output)
    assert all(char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160) for char in text)
    assert len(cut(text)) <= 780 + 40


def test_colours_titles_and_broken_bytes_are_taken_out():
    assert clean(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07a\xffb\x00\r\nc\x08") == "red a�b\nc"


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given", "gold", "right"),
    [
        ("integer", " 12 ", "12", True),
        ("integer", "012", "12", True),
        ("integer", "12.0", "12", False),
        ("integer", "twelve", "12", False),
        ("integer", "9" * 5000, "12", False),
        ("string", " a b\n", "a b", True),
        ("string", "A b", "a b", False),
        ("match", "yes", "yes", True),
        ("match", "", "yes", False),
        ("size", "8K", "8.0K", True),
        ("size", "8192", "8.0K", True),
        ("size", "8192B", "8K", True),
        ("size", "8 KB", "8K", True),
        ("size", "1M", "1024K", True),
        ("size", "8M", "8K", False),
        ("size", "K", "8K", False),
        ("size", "-8K", "8K", False),
        ("size", "nan", "8K", False),
    ],
)
def test_answers_are_compared_by_the_published_rules(kind, given, gold, right):
    assert same(kind, given, gold) is right


@given(st.text(), st.sampled_from(["integer", "string", "size", "match"]))
def test_any_answer_can_be_compared(given, kind):
    assert same(kind, given, "7K" if kind == "size" else "7") in (True, False)


# -- playing -------------------------------------------------------------------------------------------------------


def test_a_command_is_run_and_an_answer_ends_the_attempt(load):
    env = load(COUNT)
    session = opened(env)
    assert isinstance(session, Session)
    assert not isinstance(session, Placed)
    assert session.step(operation("wc -l < ~/list.txt", "count")).text == "3"
    seen = session.step(answer("3", "so"))
    assert (seen.done, seen.error, session.score()) == (True, False, 1.0)
    session.reset()
    assert session.score() == 0.0
    session.close()


def test_a_state_counts_only_once_the_assistant_says_that_it_is_done(load):
    env = load(MODES)
    assert played(env, operation(DO_MODES, "do"), finish("done")) == 1.0
    assert played(env, operation(DO_MODES, "do"), answer("done", "so")) == 1.0
    assert played(env, operation(DO_MODES, "do")) == 0.0
    assert played(env, finish("done")) == 0.0


def test_a_reset_machine_is_as_new(load):
    session = opened(load(COUNT))
    session.step(operation("rm ~/list.txt; cd /tmp; x=1; touch /tmp/left", "spoil"))
    session.reset()
    assert session.step(operation("pwd; ls /tmp; echo $x; cat ~/list.txt", "look")).text == "/\n\na\nb\nc"
    session.close()


@pytest.mark.parametrize("reply", ["", " \n", "OK", "I do not know", "Act: bash"])
def test_a_reply_without_an_action_is_an_error_that_says_what_to_write(load, reply):
    session = opened(load(COUNT))
    seen, found = session.step(reply), session.probe(reply)
    assert (seen.error, seen.invalid, seen.done, session.score()) == (True, "format", False, 0.0)
    assert "Act: bash" in seen.text
    assert found is not None
    assert found.category == "format"
    session.close()


def test_an_unknown_action_and_a_huge_script_are_not_run(load):
    session = opened(load(COUNT))
    assert session.step("Act: python").invalid == "action"
    seen = session.step(operation("echo " + "x" * 200_000, "much"))
    assert (seen.invalid, seen.error) == ("action", True)
    assert session.step(operation("echo still", "look")).text == "still"
    session.close()


def test_long_output_is_cut_as_published(load):
    session = opened(load(COUNT))
    assert session.step(operation("head -c 800 /dev/zero | tr '\\0' x", "just fits")).text == "x" * 800
    seen = session.step(operation("head -c 3000000 /dev/zero | tr '\\0' x", "much"))
    assert seen.text == "x" * 780 + "\n[the rest of the output is cut]"
    assert session.step(operation("true", "nothing")).text == "(no output)"
    session.close()


def test_a_probe_parses_the_script_and_runs_nothing(load):
    session = opened(load(COUNT))
    found = session.probe(operation("if true; then echo hi", "broken"))
    assert found is not None
    assert "does not parse" in found.text
    assert session.probe(operation("rm ~/list.txt", "fine to parse")) is None
    assert session.probe(answer("3", "so")) is None
    assert session.step(operation("ls ~", "look")).text == "list.txt"
    session.close()


def test_random_legal_actions_do_not_solve_a_task(load):
    env = load(COUNT, MODES)
    rng = random.Random(0)
    scripts = ["ls", "pwd", "touch x", "chmod 777 ~/videos", "cat /etc/passwd"]
    for task_id in ("count", "modes"):
        for _ in range(3):
            replies = [operation(rng.choice(scripts), "try") for _ in range(3)]
            assert played(env, *replies, answer("17", "so"), task_id=task_id) == 0.0


# -- gold ----------------------------------------------------------------------------------------------------------


def gold_of(env, tasks, traces=None, concurrency=4):
    graph = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations()), checker="probes").compile()
    return run_episodes(graph, tasks, env=env, traces=traces, concurrency=concurrency)


def test_the_builtin_tasks_are_solved_by_their_gold_commands_alone(traces):
    env = load_env("os", size=20, seed=3)
    outcomes = gold_of(env, env.tasks(), traces)
    assert [o.reward for o in outcomes] == [1.0] * 20
    for episode in traces.episodes():  # what the command prints is the answer
        if episode.task.category in ("integer", "string"):
            assert episode.steps[0].observation.strip() == episode.steps[-1].completion.split("answer(")[1][:-1]


def test_builtin_tasks_are_the_same_with_the_same_seed_and_split_for_good():
    one, other = generate_records(80, seed=1), generate_records(80, seed=1)
    assert one == other
    assert generate_records(80, seed=2) != one
    assert len({record.prompt for record in one}) == 80
    env = load_env("os", size=80)
    assert 10 <= len(env.tasks("test")) <= 32
    assert len(env.tasks("train")) + len(env.tasks("test")) == 80
    with pytest.raises(ConfigurationError, match="these tasks have: test, train"):
        env.tasks("dev")


@pytest.fixture(scope="module")
def official():
    if not FILE.is_file():
        pytest.skip(f"the shell tasks are not at {FILE}")
    return load_env("os", tasks=FILE)


def test_every_kind_of_official_task_is_solved_by_its_demonstration(official):
    tasks = official.tasks()
    posts = [task for task in tasks if task.category == "post"]
    some = [task for task in random.Random(5).sample(tasks, 20) if task not in posts]
    outcomes = gold_of(official, [*posts, *some])
    failed = [o.task.prompt for o in outcomes if o.reward < 1]
    assert failed == ["make /testfile readable to jack, bill and tom, but not george"]
    score = official.metric((o.task, o.reward) for o in outcomes)
    assert score["(needs met)"] == 1.0
    assert score["main"] < 1.0


@pytest.mark.slow
def test_every_official_task_whose_needs_are_met_is_solved_by_its_demonstration(official):
    outcomes = gold_of(official, official.tasks())
    score = official.metric((o.task, o.reward) for o in outcomes)
    assert score["(needs met)"] == 1.0
    assert score["main"] >= 0.99


def test_prompts_are_the_published_words_and_none_is_like_another(official):
    prompts = [task.prompt for task in official.tasks()]
    assert len(set(prompts)) == len(prompts)
    named = [prompt for prompt in prompts if "host name" in prompt]
    assert 0 < len(named) <= 12


def test_a_machine_bears_the_name_that_its_prompt_tells(official):
    task = next(task for task in official.tasks() if "host name" in task.prompt)
    session = official.open(task)
    name = session.step(operation("uname -n", "look")).text
    session.close()
    assert f"The host name of this machine is {name}." in task.prompt


def test_no_gold_reaches_a_prompt_or_an_observation(load, traces):
    secret = "zq9187342"
    record = {**COUNT, "check": "string", "answer": secret, "gold": [f"echo {secret}"]}
    wanted = {**MODES, "post": {"present": [f"/root/{secret}"], "command_text": [{"argv": [secret], "expect": "1"}]}}
    env = load(record, wanted)
    look = operation("ls -laR /root /etc /tmp; env; set; ps aux; cat /proc/*/cmdline", "look")
    model = ScriptedChatModel(replies=["no", look, operation("cat /proc/1/environ", "look"), answer("1", "so")] * 20)
    graph = create_cmat_graph(model, checker="probes", reflector=model, max_attempts=2, use_reward=True).compile()
    run_episodes(graph, env.tasks(), env=env, traces=traces, concurrency=1)
    steps = [step for episode in traces.episodes() for step in episode.steps]
    shown = json.dumps([[step.messages, step.before, step.after, step.observation] for step in steps])
    assert secret not in shown
    assert secret not in json.dumps([dataclasses.asdict(task) for task in env.tasks()]) + env.rules
    session = opened(env)
    session.step(look)
    assert secret not in session._machine.run("cat /proc/*/cmdline /proc/*/environ; set; ls -laR /root").output.decode()
    session.close()


def test_the_score_is_the_share_solved_and_needs_are_told_apart(load):
    env = load(COUNT, {**MODES, "needs": "several user ids"})
    count, modes = env.tasks()
    assert env.metric([(count, 1.0), (modes, 0.0)]) == {"main": 0.5, "(needs met)": 1.0, "integer": 1.0, "post": 0.0}
    assert env.metric([]) == {"main": 0.0}


# -- bad input -----------------------------------------------------------------------------------------------------


def state(**file):
    return {**COUNT, "state": {"files": [{"path": "/root/x", "type": "file", "mode": "0644", **file}]}}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({**COUNT, "check": "dream"}, "check"),
        ({**COUNT, "answer": None}, "answer: missing"),
        ({**MODES, "post": None}, "post: missing"),
        ({key: value for key, value in COUNT.items() if key != "description"}, "description"),
        (state(path="etc/passwd"), "absolute"),
        (state(path="/root/../../etc/passwd"), "climb"),
        (state(path="/"), "root itself"),
        (state(path="/root/\0"), "absolute"),
        (state(type="device"), "type"),
        (state(type="link"), "a link needs one"),
        (state(mode="99"), "octal"),
        (state(mode="77777"), "octal"),
        (state(text="a", b64="YQ=="), "one of text"),
        (state(b64="?"), "b64"),
        (state(fill={"byte": 0, "size": 10**12}), "more than"),
        (state(fill={"byte": 300, "size": 1}), "byte"),
        ({**COUNT, "state": {"files": [], "users": ["evil\nroot::0:0"]}}, "no line"),
        ({**COUNT, "session": {"vars": {"a;b": "1"}}}, "no shell variable"),
        ({**COUNT, "session": {"user": "jack"}}, "no line in state.users"),
        ({**COUNT, "session": {"cwd": "../x"}}, "absolute"),
    ],
)
def test_a_faulty_record_is_refused_with_its_line(load, record, said):
    with pytest.raises(TaskFileError, match=r"line 2: .*" + said):
        load(MODES, record)


def test_empty_missing_and_doubled_task_files_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "twice.jsonl").write_text(f"{json.dumps(COUNT)}\r\n{json.dumps(COUNT)}\r\n")
    (tmp_path / "torn.jsonl").write_text('{"id": ')
    for name, said in (
        ("empty", "no tasks"),
        ("twice", "one id"),
        ("torn", "not valid JSON"),
        ("none", "no task file"),
    ):
        with pytest.raises(TaskFileError, match=said):
            load_env("os", tasks=tmp_path / f"{name}.jsonl")


def test_a_zipped_task_file_with_other_letters_is_read(tmp_path):
    record = {**COUNT, "description": "Wie viele Zeilen? 日本", "answer": 3}
    path = tmp_path / "tasks.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(record, ensure_ascii=False).encode()))
    env = load_env("os", tasks=path)
    assert played(env, answer("3", "so")) == 1.0


@pytest.mark.parametrize("option", [{"sandbox": "tape"}, {"seconds": "soon"}, {"memory_mb": 1}, {"disk_mb": 0}])
def test_options_that_make_no_sense_are_refused(option):
    with pytest.raises(ConfigurationError):
        load_env("os", size=2, **option)


def test_where_nothing_walls_in_a_command_is_refused_with_the_fix(monkeypatch):
    monkeypatch.setattr("cmat_graph.envs.shell.starting._tried", lambda kind: "is not here")
    env = load_env("os", size=2)
    with pytest.raises(ConfigurationError, match="apt-get install bubblewrap"):
        env.open(env.tasks()[0])


def test_an_unknown_condition_is_never_met_and_told_apart(load):
    odd = {**MODES, "post": {**MODES["post"], "moon_is": "full"}}
    env = load(odd)
    assert played(env, operation(DO_MODES, "do"), finish("done")) == 0.0
    assert env.metric([(env.tasks()[0], 0.0)]) == {"main": 0.0, "post": 0.0}


@given(
    st.dictionaries(
        st.sampled_from(["path", "type", "mode", "text", "fill", "target", "mtime"]), st.text() | st.integers()
    )
)
def test_any_file_of_a_record_is_read_or_refused(file):
    with suppress(ValidationError):
        read = Record.model_validate({**COUNT, "state": {"files": [file]}}).state.files[0]
        assert read.path.startswith("/")
        assert ".." not in read.path.split("/")


@pytest.mark.parametrize(
    "post", [{"mode_bits_set": {"path": "/x", "bits": "; rm -rf /"}}, {"present": "/root/a"}, {"never_seen": 1}]
)
def test_a_condition_that_cannot_be_read_never_holds_and_spoils_no_other_task(load, post):
    env = load({**MODES, "post": post}, COUNT)
    assert played(env, operation(DO_MODES, "?"), "Think: done\nAct: finish", task_id="modes") == 0
    assert played(env, "Think: three\nAct: answer(3)", task_id="count") == 1
    met = env.metric([(task, float(task.id == "count")) for task in env.tasks()])
    assert met["main"] == 0.5


@pytest.mark.parametrize(
    ("bits", "mode", "holds"),
    [
        ("u+x", "0744", True),
        ("u+x", "0644", False),
        ("o-w", "0775", True),
        ("o-w", "0777", False),
        ("g=rx,o=", "0750", True),
        ("g=rx,o=", "0770", False),
        ("g=rx,o=", "0754", False),
        ("0750", "0755", True),
        ("0750", "0740", False),
    ],
)
def test_bits_of_a_mode_are_told_as_chmod_takes_them(load, bits, mode, holds):
    file = {"path": "/root/f", "type": "file", "mode": mode, "text": "x"}
    env = load({**MODES, "post": {"mode_bits_set": {"path": "/root/f", "bits": bits}}, "state": {"files": [file]}})
    assert played(env, "Think: look\nAct: finish") == float(holds)
