from __future__ import annotations

import copy
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.traces.redact import REDACTED, Redactor

SK = "sk-proj-" + "a1B2" * 8
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq3\nxyz+/=\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://me:hunter2@db:5432/shop", "postgresql://me:[redacted]@db:5432/shop"),
        ("redis://:hunter2@cache", "redis://:[redacted]@cache"),
        ("see http://u:p@ss@host/x (ok)", "see http://u:[redacted]@host/x (ok)"),
        ("mysql://u:pa/ss@host/x", "mysql://u:[redacted]@host/x"),
        ("https://h/p?a=1&api_key=abc&b=2", "https://h/p?a=1&api_key=[redacted]&b=2"),
        ("(https://h/p?token=abc).", "(https://h/p?token=[redacted])."),
        ("GET /v1?x[]=1&Access_Token=abc HTTP/1.1", "GET /v1?x[]=1&Access_Token=[redacted] HTTP/1.1"),
        ("https://h/?key=a.b&signature=c#top", "https://h/?key=[redacted]&signature=[redacted]#top"),
        ("Authorization: Bearer abc", "Authorization: Bearer [redacted]"),
        ('{"authorization": "Basic abc"}', '{"authorization": "Basic [redacted]"}'),
        ("-H 'Bearer 3f9a-77c0_x'", "-H 'Bearer [redacted]'"),
        ("Basic dXNlcjpwYXNz", "Basic [redacted]"),
        (f"key {SK}.", "key [redacted]."),
        ("sk-ant-api03-" + "x" * 20, REDACTED),
        ("sk-" + "abcd" * 6, REDACTED),
        ("ghp_" + "a1" * 18, REDACTED),
        ("gho_" + "a1" * 18, REDACTED),
        ("github_pat_11AAAA_" + "a1" * 18, REDACTED),
        ("xoxb-1234-5678-abcdef", REDACTED),
        ("id AKIAIOSFODNN7EXAMPLE,", "id [redacted],"),
        ("AIza" + "Sy_-x" * 7, REDACTED),
        ("hf_" + "aBcD" * 8, REDACTED),
        (f'"{JWT}"', '"[redacted]"'),
        (PEM, "-----BEGIN RSA PRIVATE KEY-----\n[redacted]-----END RSA PRIVATE KEY-----"),
        (PEM[:50] + " ... [cut]", "-----BEGIN RSA PRIVATE KEY-----\n[redacted] ... [cut]"),
        (json.dumps(PEM), '"-----BEGIN RSA PRIVATE KEY-----\\n[redacted]-----END RSA PRIVATE KEY-----"'),
    ],
)
def test_known_secrets_go_and_the_text_around_them_stays(text, redacted):
    assert Redactor().text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM users WHERE password = 'x' AND token = 'abc'",
        "password: hunter2, api_key=abc, key=value; token=5&key=6",
        "a:b@c and me@example.com, at 10:30@noon",
        "http://localhost:8080/a@b and http://[::1]:80/x@y and https://h:443?mail=a@b",
        'url = f"postgresql://{user}:{password}@{host}/db?key={key}"',
        "postgresql://me:***@db/shop, http://u:$PASS@h, ssh://git@host/x, file://C:/x@y",
        'headers = {"Authorization": f"Bearer {token}"}',
        "bearer authentication is basic understanding; Basic JavaScript, the bearer of news",
        "sorted(rows, key=len); risk-free task-oriented-programming-languages-of-today",
        ".sk-toggleable__label-arrow { }  sk-estimator-doc-link",
        "from huggingface_hub import hf_hub_download; eyJ is no token; xox-like",
        'if line.startswith("-----BEGIN RSA PRIVATE KEY-----"): read() -----',
        "https://shop/?page_token=x&sort_key=price&keyword=red+shoes",
        "What is the key? token=5",
        "[redacted] and [redacted]",
        "",
    ],
)
def test_ordinary_text_comes_back_as_it_is(text):
    assert Redactor().text(text) is text


def test_benchmark_prompts_stay(dbbench):
    redactor = Redactor()
    for text in dbbench.read_text(encoding="utf-8").splitlines():
        assert redactor.text(text) is text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("WHERE password = 'x'", "WHERE password = '[redacted]'"),
        ("password = 'it''s' -- so", "password = '[redacted]' -- so"),
        ("PASSWORD=hunter2 USER=me", "PASSWORD=[redacted] USER=me"),
        ("password: hunter2.\nuser: me", "password: [redacted].\nuser: me"),
        ("f(password=abc, x=1)", "f(password=[redacted], x=1)"),
        ("Server=x;Password=abc;Timeout=3", "Server=x;Password=[redacted];Timeout=3"),
        ('{"password": "a\\"b", "x": "y"}', '{"password": "[redacted]", "x": "y"}'),
        ('{"password":1234,"x":{"password":5}}', '{"password":[redacted],"x":{"password":[redacted]}}'),
        (r'"{\"password\": \"abc\", \"x\": 1}"', r'"{\"password\": \"[redacted]\", \"x\": 1}"'),
        ('{"password": {"old": "a", "new": "b"}}', '{"password": [redacted]}'),
        ('config["password"] = "abc"', 'config["password"] = "[redacted]"'),
        ("password=[redacted]abc", "password=[redacted]"),
        ("password='cut off here\nnext", "password='[redacted]\nnext"),
        ("password: Bearer abc", "password: [redacted]"),
        (f"password={SK}.tail", "password=[redacted]"),
    ],
)
def test_values_of_names_go(text, redacted):
    assert Redactor(names=["password"]).text(text) == redacted


@pytest.mark.parametrize("text", ["my_password=x", "passwords: two", "password::text", "password ''", 'password=""'])
def test_only_the_name_itself_counts(text):
    assert Redactor(names=["password"]).text(text) is text


def test_the_value_of_an_environment_variable_goes_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("SHOP_PIN", 'four"4444')
    monkeypatch.setenv("SHOP_DEBUG", "true")
    redactor = Redactor(names=["SHOP_PIN", "SHOP_DEBUG", "SHOP_UNSET"])
    assert redactor.text('I typed four"4444, true.') == "I typed [redacted], true."
    assert redactor.text(json.dumps('four"4444')) == '"[redacted]"'
    assert redactor.text("?q=four%224444") == "?q=[redacted]"


def test_literal_values_go_the_longest_first():
    assert Redactor(values=["abc", "abcdef", ""]).text("abcdefg abcd") == "[redacted]g [redacted]d"


def test_a_literal_value_of_two_words_goes_as_one():
    assert Redactor(names=["pin"], values=["two words"]).text("pin: two words") == "pin: [redacted]"


def test_own_patterns_go_whole_or_by_their_group():
    redactor = Redactor(patterns=[r"\bK\d{4}\b", re.compile(r"pin (?P<secret>\d+)", re.I)])
    assert redactor.text("K1234, PIN 99") == "[redacted], PIN [redacted]"


def test_values_are_redacted_all_the_way_down():
    record = {
        "messages": [{"role": "user", "content": f"use {SK}"}, ("a", SK, 5)],
        "Password": ["one", "two"],
        SK: None,
        7: 1.5,
    }
    before = copy.deepcopy(record)
    assert Redactor(names=["password"]).value(record) == {
        "messages": [{"role": "user", "content": "use [redacted]"}, ("a", REDACTED, 5)],
        "Password": REDACTED,
        REDACTED: None,
        7: 1.5,
    }
    assert record == before


PIECES = st.sampled_from(
    f"""password token : = " ' \\" \\ , ; & ? . {{ }} [ ] ( ) @ / :// http://u: Bearer Basic Authorization: api_key=
    {SK} {JWT} {REDACTED} [redac ted] abc ab ]a x 5 AKIAIOSFODNN7EXAMPLE dXNlcjpwYXNz sk- eyJ {"A" * 20}""".split()
)
TEXTS = st.one_of(st.text(), st.lists(PIECES | st.sampled_from(PEM.split("\n")) | st.sampled_from(" \n")).map("".join))
REDACTORS = [
    Redactor(),
    Redactor(names=["password", "TOKEN", "x"], values=["abc", "b]", "a[", "]", "redacted"]),
    Redactor(patterns=[r"(?<=\])a", "[a-z]{3,}", "x*", r"."]),
]


@pytest.mark.parametrize("redactor", REDACTORS)
@given(text=TEXTS)
def test_redacting_twice_changes_nothing_more(redactor, text):
    once = redactor.text(text)
    assert redactor.text(once) is once
    nested = redactor.value({text: [text]})
    assert redactor.value(nested) == nested


@given(before=st.text("ab =:/?'\"[]{}\n"), after=st.text("ab =:/?'\"[]{}\n"), value=st.text(min_size=6))
def test_no_literal_value_is_left(before, after, value):
    text = Redactor(values=[value]).text(before + value + after)
    assert value not in text.replace(REDACTED, "\0") or "\0" in value


HARD = r"""eyJ -eyJ a.eyJ sk- -sk- xoxb- :// ://a: ://a:b/ ://a:{ ://u:p@ /?key= ?a=&key= Bearer_ basic_AAAA AKIA \
    Authorization:_Bearer_ -----BEGIN_PRIVATE_KEY-----_ ----- [redacted] password password= password=' password=\"
    password={ password=a} _ )""".split()


@pytest.mark.timeout(120)  # a pattern that goes back and forth would need hours
@pytest.mark.parametrize("piece", [piece.replace("_", " ") for piece in HARD])
def test_a_megabyte_of_anything_is_read_in_one_go(piece):
    redactor = Redactor(names=["password"])
    for text in (piece * (1_000_000 // len(piece)), *(piece + tail * 1_000_000 for tail in "a )")):
        redactor.text(text)
