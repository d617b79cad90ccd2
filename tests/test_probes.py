from __future__ import annotations

import logging
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmat_graph import probes
from cmat_graph.probes import probe_arguments, probe_bash, probe_choice, probe_click

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "stops": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    },
    "required": ["city", "days"],
}


@needs_bash
@pytest.mark.parametrize(
    "script",
    [
        "echo 'hi'",
        "",
        "for f in *; do echo $f; done\n",
        "shopt -s extglob\nls !(a|b)",
        "cat <<EOF\nunended",
        "echo a\0b",
        "echo zażółć \ud800",
        "exit 1",
    ],
)
def test_a_script_that_parses_is_left_alone(script):
    assert probe_bash(script) is None


@needs_bash
def test_a_script_that_does_not_parse_is_found_with_its_line():
    finding = probe_bash("echo hi\nif true; fi\n")
    assert finding.certain
    assert "line 2: syntax error near unexpected token `fi'" in finding.text


@needs_bash
def test_nothing_of_a_script_is_executed(tmp_path, monkeypatch):
    startup = tmp_path / "startup"
    startup.write_text(f"touch {tmp_path}/evil\n")
    monkeypatch.setenv("BASH_ENV", str(startup))
    monkeypatch.setenv("ENV", str(startup))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text(startup.read_text())
    assert probe_bash(f"touch {tmp_path}/evil; x=$(touch {tmp_path}/evil); trap 'touch {tmp_path}/evil' EXIT") is None
    assert not (tmp_path / "evil").exists()


@needs_bash
@pytest.mark.parametrize("script", ["echo hi\n" * 150_000, "\0" * 1_000_000, "(" * 1_000_000, "$(" * 500_000])
def test_a_megabyte_breaks_nothing(script):
    probe_bash(script)


@needs_bash
def test_a_check_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(probes, "BASH_SECONDS", 0.0)
    assert probe_bash("if") is None


def test_without_bash_there_is_no_finding_and_it_is_said_once(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    probes._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        assert probe_bash("if") is None
        assert probe_bash("if") is None
    assert len(caplog.records) == 1


def test_case_and_white_space_do_not_count_in_a_choice():
    assert probe_choice(" Go  to\nShelf 1 ", ["look", "go to shelf 1"]) is None


def test_a_choice_that_is_not_admissible_gets_the_nearest_three():
    finding = probe_choice("go to shelf", ["look", "go to shelf 1", "go to shelf 2", "go to shelf 3", "go to shelf 4"])
    assert finding.text == "`go to shelf` is not admissible here."
    assert finding.hint.startswith("Did you mean `go to shelf ")
    assert finding.hint.count("`") == 6


def test_a_choice_like_no_other_gets_the_first_ten():
    finding = probe_choice("xyz", [f"take {i}" for i in range(12)])
    assert finding.hint == f"Admissible: {', '.join(f'`take {i}`' for i in range(10))} and 2 more."
    assert probe_choice("xyz", []).hint == "Nothing is admissible here."
    assert probe_choice(" ", ["look"]).text == "The reply holds no action."


@pytest.mark.parametrize("action", ["search[red shoes]", " click[buy now]\n", "click[Buy Now]", "click[size [l]]"])
def test_a_good_shop_action_is_left_alone(action):
    assert probe_click(action, ["Buy Now", "size [L]"], has_search_bar=True) is None


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("click Buy Now", "no known form"),
        ("Action: click[Buy Now]", "no known form"),
        ("click[Buy Now] please", "no known form"),
        ("search[]", "no words"),
        ("search[ ]", "no words"),
        ("click[]", "cannot be clicked"),
        ("click[Sell]", "cannot be clicked"),
    ],
)
def test_a_bad_shop_action_is_found(action, said):
    assert said in probe_click(action, ["Buy Now"], has_search_bar=True).text


def test_a_shop_finding_names_what_can_be_clicked():
    names = ["Buy Now", "< Prev"]
    assert probe_click("click[buy]", names, has_search_bar=True).hint == "Did you mean `click[Buy Now]`?"
    finding = probe_click("search[shoes]", names, has_search_bar=False)
    assert finding.text == "There is no search bar on this page."
    assert finding.hint == "Admissible: `click[Buy Now]`, `click[< Prev]`."


def test_fitting_arguments_are_left_alone():
    assert probe_arguments("trip", {"city": "Oslo", "days": 3, "more": None}, SCHEMA) is None


def test_a_missing_argument_is_certain():
    finding = probe_arguments("trip", {"days": "3"}, SCHEMA)
    assert finding.certain
    assert finding.text == "The arguments of `trip` do not fit: 'city' is a required property."
    assert finding.hint == "Required: `city`, `days`."


@pytest.mark.parametrize("arguments", [None, "text", ["city"], 3])
def test_arguments_that_are_no_object_are_certain(arguments):
    assert probe_arguments("trip", arguments, SCHEMA).certain


def test_a_wrong_type_is_a_suspicion_with_its_place():
    finding = probe_arguments("trip", {"city": "Oslo", "days": 3, "stops": [{"name": 1}, "Bergen"]}, SCHEMA)
    assert not finding.certain
    assert finding.text == "The arguments of `trip` do not fit at `$.stops[1]`: 'Bergen' is not of type 'object'."


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"$ref": "#/nowhere"}}},
        {"properties": {"a": {"$ref": "http://example.invalid/schema"}}},
        {"$ref": "#"},
        {"properties": []},
    ],
)
def test_a_broken_schema_is_the_tools_matter_and_said_once(schema, caplog):
    probes._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        assert probe_arguments("tool", {"a": "b"}, schema) is None
        assert probe_arguments("tool", {"a": "b"}, schema) is None
    assert len(caplog.records) == 1


def test_what_a_model_wrote_is_shortened_in_a_finding():
    long = "x" * 1_000_000
    assert len(probe_choice(long, [long + "y", "look"]).text) < 300
    assert len(probe_arguments(long, {"city": "Oslo", "days": long}, SCHEMA).text) < 600


@given(action=st.text(), names=st.lists(st.text()))
def test_no_action_breaks_a_probe(action, names):
    probe_choice(action, names)
    for text in (action, f"click[{action}]", f"search[{action}]"):
        probe_click(text, names, has_search_bar=True)
        probe_click(text, names, has_search_bar=False)


@needs_bash
@settings(max_examples=30, deadline=None)
@given(script=st.text())
def test_no_script_breaks_the_probe(script):
    probe_bash(script)


@settings(deadline=None)
@given(name=st.text(), arguments=JSON, schema=st.dictionaries(st.sampled_from(["type", "required", "a"]), JSON))
def test_no_arguments_and_no_schema_break_the_probe(name, arguments, schema):
    probe_arguments(name, arguments, SCHEMA)
    probe_arguments(name, arguments, schema)
