"""Web navigation in a real browser: MiniWoB++ pages in a headless Chromium."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.envs.web import browser
from cmat_graph.envs.web.live import choosable
from cmat_graph.envs.web.replies import write_reply
from cmat_graph.errors import ConfigurationError, EnvironmentFailure
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.types import Placed, Session

INSTALLED = all(importlib.util.find_spec(name) for name in ("miniwob", "selenium"))
CHROMIUM = shutil.which("chromium") and shutil.which("chromedriver")
in_browser = [
    pytest.mark.server,
    pytest.mark.skipif(not INSTALLED, reason='miniwob or selenium is missing: pip install "cmat-graph[web]"'),
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is missing: apt-get install chromium chromium-driver"),
]
needs_package = pytest.mark.skipif(not INSTALLED, reason='miniwob is missing: pip install "cmat-graph[web]"')


def browsers_running():
    """Return the processes of browsers that this project started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"cmat-chromium-" in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def goals(instruction):
    """Say what solves a page, by what it asks for: the element's line, the operation, the value. A rule, no model."""
    quoted = re.findall(r'"([^"]*)"', instruction)
    if "username" in instruction:
        return [("username", "TYPE", quoted[0]), ("password", "TYPE", quoted[1]), ("Login", "CLICK", "")]
    if "into the text field" in instruction:
        return [("<input_text", "TYPE", quoted[0]), ("Submit", "CLICK", "")]
    if "from the list" in instruction:
        option = re.fullmatch(r"Select (.*) from the list and click Submit\.", instruction)[1]
        return [("<select", "SELECT", option), ("Submit", "CLICK", "")]
    if quoted:
        return [(rf"<(button|span)[^>]*> {re.escape(quoted[0])}$", "CLICK", "")]
    return [(rf"> {re.escape(re.search(r'(ONE|Tab #[0-9]+)', instruction)[1])}$", "CLICK", "")]


def reply_to(question, goal):
    pattern, operation, value = goal
    for letter, line in re.findall(r"^([B-F])\. (.*)$", question, re.MULTILINE):
        if re.search(pattern, line):
            return write_reply(letter, operation, value)
    return write_reply("A")


def play(session):
    """Play a page by its rule; return what was said."""
    seen = []
    todo = goals(session.intro().removeprefix("The page asks: "))
    for _ in range(100):
        done = session.view().count("->")
        seen.append(session.step(reply_to(session.view(), todo[min(done, len(todo) - 1)])))
        if seen[-1].done:
            break
    return seen


class TestInABrowser:
    pytestmark = in_browser

    @pytest.mark.parametrize(
        "page", ["click-button", "click-link", "click-tab", "login-user", "enter-text", "choose-list"]
    )
    def test_a_rule_player_wins_real_pages(self, page):
        env = load_env("web", tasks="live", pages=page, size=2, seed=3)
        for task in env.tasks():
            session = env.open(task)
            try:
                session.reset()
                assert session.score() == 0.0
                seen = play(session)
                assert not [each for each in seen if each.error]
                assert session.score() == 1.0
            finally:
                session.close()
        assert not browsers_running()

    def test_an_episode_through_the_whole_graph_with_a_reset_and_a_replay(self):
        env = load_env("web", tasks="live", pages=["click-test-2"], size=1)
        (task,) = env.tasks()
        session = env.open(task)
        try:
            assert isinstance(session, Session)
            assert isinstance(session, Placed)
            reply = reply_to(session.view(), ("> ONE$", "CLICK", ""))
            wrong = reply_to(session.view(), ("> TWO$", "CLICK", ""))
        finally:
            session.close()
        model = ScriptedChatModel(replies=[wrong, "I clicked the wrong button.", reply])
        graph = create_cmat_graph(model, checker="probes", reflector=model, use_reward=True, max_attempts=2).compile()
        (outcome,) = run_episodes(graph, [task], env=env)
        assert (outcome.reward, outcome.attempts, outcome.error) == (1.0, 2, "")
        assert env.metric([(task, outcome.reward)]) == {"main": 1.0, "episode success": 1.0, "click-test-2": 1.0}
        assert not browsers_running()

    def test_what_cannot_be_done_is_told_and_the_page_goes_on(self):
        env = load_env("web", tasks="live", pages="choose-list", size=1)
        session = env.open(env.tasks()[0])
        try:
            first = session.view()
            for pattern, operation, value, told in [
                ("Submit", "SELECT", "x", "SELECT is for menus"),
                ("<select", "SELECT", "Atlantis", "no option 'Atlantis'"),
                ("Submit", "", "", "no action was named"),
            ]:
                seen = session.step(reply_to(session.view(), (pattern, operation, value)))
                assert (seen.error, seen.invalid, seen.done) == (True, "action", False)
                assert told in seen.text
            assert session.step("what?").invalid == "format"
            session.reset()
            assert session.view() == first
            play(session)
            assert session.score() == 1.0
        finally:
            session.close()

    def test_who_chooses_nothing_is_stopped_and_scores_nothing(self):
        env = load_env("web", tasks="live", pages="click-test-2", size=1)
        session = env.open(env.tasks()[0])
        try:
            rounds = next(n for n in range(1, env.max_rounds + 1) if session.step("Answer: A").done)
            assert rounds <= env.max_rounds
            assert session.score() == 0.0
            assert session.step("Answer: B.\nAction: CLICK").error
        finally:
            session.close()

    def test_a_browser_that_dies_is_the_environments_failure_and_leaves_nothing(self):
        env = load_env("web", tasks="live", pages="click-button", size=1)
        session = env.open(env.tasks()[0])
        session.reset()
        session._browser._driver.service.process.kill()
        with pytest.raises(EnvironmentFailure, match="the browser broke"):
            play(session)
        session.close()
        session.close()
        assert not browsers_running()

    def test_a_forgotten_session_takes_its_browser_with_it(self):
        code = (
            "from cmat_graph.envs import load_env\n"
            "env = load_env('web', tasks='live', pages='click-button', size=1)\n"
            "session = env.open(env.tasks()[0])\n"
            "session.reset()\n"
            "raise SystemExit(3)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3
        assert not browsers_running()

    def test_more_sessions_than_browsers_wait_their_turn(self):
        env = load_env("web", tasks="live", pages="click-test-2", size=4, browsers=2)
        model = ScriptedChatModel(replies=["Answer: B.\nAction: CLICK"] * 200)
        outcomes = run_episodes(create_cmat_graph(model, max_attempts=1).compile(), env.tasks(), env=env, concurrency=4)
        assert [outcome.error for outcome in outcomes] == [""] * 4
        assert not browsers_running()


@needs_package
def test_a_machine_without_chromium_is_told_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="apt-get install chromium chromium-driver"):
        load_env("web", tasks="live")


def test_a_missing_package_names_its_extra():
    code = (
        "import sys, importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'miniwob' else found(name, *more)\n"
        "from cmat_graph.envs import load_env\n"
        "load_env('web', size=3)\n"
        "try: load_env('web', tasks='live')\n"
        "except ImportError as exc: print(exc)\n"
        "assert 'selenium' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'pip install "cmat-graph[web]"' in done.stdout


@needs_package
def test_an_unknown_page_is_named_with_those_there_are(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(ConfigurationError, match=r"no page 'click-everything'; it has: .*click-button"):
        load_env("web", tasks="live", pages="click-button,click-everything")
    with pytest.raises(ConfigurationError, match="no page"):
        load_env("web", tasks="live", pages="../miniwob/click-button")


@needs_package
def test_live_tasks_are_spread_over_pages_and_seeds_and_know_no_gold(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: f"/usr/bin/{name}")
    env = load_env("web", tasks="live", pages="click-button, enter-text", size=4, seed=5)
    assert [task.id for task in env.tasks()] == ["click-button-5", "enter-text-5", "click-button-6", "enter-text-6"]
    assert env.source == "live"
    assert env.demonstrations() == {}
    assert env.metric([]) == {"main": 0.0}


def test_what_holds_other_elements_cannot_be_chosen_and_text_is_no_element():
    rows = [
        (1, 0, "body", "", "", "", ""),
        (2, 1, "label", "", "", "", ""),
        (3, 2, "input_checkbox", "", "", "", ""),
        (-1, 2, "t", "AU", "", "", ""),
        (4, 1, "div", "", "", "", ""),
        (-2, 4, "t", "only text", "", "", ""),
    ]
    assert choosable(rows) == ["3", "4"]
