from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import pytest
from families import tokenizer
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field

from cmat_graph.errors import ConfigurationError, EngineError
from cmat_graph.models.chat.grammar import grammars_of
from cmat_graph.rendering.formats import FAMILIES, HERMES, OWN
from cmat_graph.rendering.template import study


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Part(BaseModel):
    number: int
    note: str | None = None


class Order(BaseModel):
    """An order."""

    mood: Mood
    parts: list[Part] = Field(max_length=3)
    name: str = Field(pattern=r"^[a-z]{1,8}$")


ADD = convert_to_openai_tool(
    {
        "title": "add",
        "description": "Add.",
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
    }
)
ADD_ALL = convert_to_openai_tool({"title": "add_all", "description": "Add.", "type": "object", "properties": {}})
GOOD = '{"mood": "good", "parts": [{"number": 1}, {"number": -2, "note": "東京"}], "name": "ann"}'


def grammars(name="qwen"):
    own = tokenizer(name)
    return grammars_of(own, {own.eos_token_id})


def allows(constraint, text, name="qwen"):
    return constraint.allows(tokenizer(name).encode(text, add_special_tokens=False))


def test_a_reply_must_follow_a_schema_with_references_enums_and_patterns():
    constraint = grammars().constraint(schema=Order.model_json_schema())
    assert allows(constraint, GOOD)
    assert Order.model_validate_json(GOOD)
    for wrong in (
        '{"mood": "odd"',
        GOOD.replace("ann", "Ann"),
        GOOD[:-1],
        GOOD[:-1] + ', "more": 1}',
        GOOD + "\n",
        "Sure!",
    ):
        assert not allows(constraint, wrong)


def test_the_end_is_allowed_only_when_the_reply_is_whole():
    own, constraint = tokenizer("qwen"), grammars().constraint(schema={"type": "object"})
    end = own.eos_token_id
    for token in own.encode('{"a": [1]}', add_special_tokens=False):
        mask = constraint.mask()
        assert (mask.dtype.is_floating_point, len(mask)) == (False, len(own))
        assert mask[token]
        assert not mask[end]
        assert not constraint.is_done()
        constraint.advance(token)
    assert constraint.is_done()
    assert constraint.mask().nonzero().flatten().tolist() == [end]


def test_a_choice_may_begin_like_another():
    constraint = grammars().constraint(choices=["approve", "approve with a note", 'say "no"\n', "否"])
    assert all(allows(constraint, choice) for choice in ["approve", "approve with a note", 'say "no"\n', "否"])
    assert not any(allows(constraint, wrong) for wrong in ["app", "approve with", "no", ""])


@pytest.mark.parametrize("name", ["qwen", "smol", "llama", "mistral", "mistral-args", "gemma"])
def test_a_call_must_be_one_of_a_tool_with_its_arguments(name):
    form = study(tokenizer(name)).format
    constraint = grammars(name).constraint(tools=[ADD, ADD_ALL], form=form)
    assert allows(constraint, form.write("add", {"a": 12}), name)
    assert allows(constraint, form.write("add_all", {}), name)
    for wrong in (form.write("add", {"a": "x"}), form.write("sub", {"a": 1}), form.write("add", {}), "No."):
        assert not allows(constraint, wrong, name)


@pytest.mark.parametrize("form", [*FAMILIES, OWN], ids=lambda form: form.name)
def test_a_call_or_json_even_where_both_begin_alike(form):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "parameters": {"type": "integer"}}}
    constraint = grammars("llama").constraint(tools=[ADD], form=form, schema=schema)
    for right in (form.write("add", {"a": 1}), '{"name": "add"}', '{"name": "Bob", "parameters": 3}'):
        assert allows(constraint, right, "llama")
    assert not allows(constraint, '{"name": "Bob", "parameters": {}}', "llama")


@pytest.mark.parametrize("name", ["qwen", "smol"])
def test_reasoning_stays_free_before_a_constrained_reply(name):
    call = HERMES.write("add", {"a": 1})
    opened = grammars(name).constraint(tools=[ADD], form=HERMES, thinking="open")
    assert allows(opened, f"Hm, </ 1 + 2?\n</think>\n\n{call}", name)
    assert not allows(opened, call, name)
    may = grammars(name).constraint(tools=[ADD], form=HERMES, thinking="may")
    assert allows(may, f"<think>\nHm.\n</think>\n\n{call}", name)
    assert allows(may, call, name)
    assert not allows(may, f"Hm. {call}", name)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "not"),
        ({"type": "string", "pattern": "(?=a)b"}, "regex"),
        ({"type": "odd"}, "odd"),
        ({"$ref": "#/$defs/Missing"}, "Missing"),
    ],
)
def test_what_cannot_be_enforced_is_named(schema, named):
    with pytest.raises(ConfigurationError, match=f"the schema asks for what constrained decoding cannot.*{named}"):
        grammars().constraint(schema=schema)
    with pytest.raises(ConfigurationError, match=f"tool 'f' asks for .*{named}"):
        grammars().constraint(tools=[{"function": {"name": "f", "parameters": schema}}], form=HERMES)


def test_parts_of_a_schema_may_be_open_or_put_together():
    both = {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
        ]
    }
    assert allows(grammars().constraint(schema=both), '{"a": 1, "b": 2}')
    open_ = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}}
    assert allows(grammars().constraint(schema=open_), '{"a": 1, "more": true}')


def test_a_number_has_an_end():
    constraint = grammars().constraint(schema={"type": "integer"})
    assert allows(constraint, "9" * 18)
    assert not allows(constraint, "9" * 19)
    assert allows(grammars().constraint(schema={"type": "integer", "minimum": 3}), "3")
    for schema in ({"type": "number"}, {"type": "number", "minimum": 0}, {"type": ["number", "null"]}):
        constraint = grammars().constraint(schema=schema)
        assert all(allows(constraint, text) for text in ("1", "0.25", "1.000000001"))
        assert not any(allows(constraint, text) for text in ("9" * 16, "0." + "1" * 10, "1e400"))
    assert allows(grammars().constraint(schema={"type": "number", "minimum": 1e15}), "1" + "0" * 15)


@pytest.mark.clock
@pytest.mark.parametrize(
    "wanted",
    [
        {"choices": [f"v{number}" for number in range(100_000)]},
        {"choices": ["x" * 300_000]},
        {"choices": ["fine", "<|im_end|>"]},
        {"schema": {"enum": ["fine", "<|im_end|>"]}},
        {"schema": {"$ref": "#"}},
        {"schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}},
        {"schema": {"type": "object", "properties": {f"a{number}": {"type": "string"} for number in range(3000)}}},
    ],
    ids=["many", "long", "token", "value", "itself", "circle", "wide"],
)
def test_what_is_too_much_is_refused_before_anybody_waits_for_it(wanted):
    began = time.perf_counter()
    with pytest.raises(ConfigurationError):
        grammars().constraint(**wanted)
    assert time.perf_counter() - began < 3


def test_a_large_grammar_keeps_no_other_waiting(monkeypatch):
    own, entered, release = grammars(), threading.Event(), threading.Event()
    check = own._check

    def slow(what, schema):
        entered.set()
        release.wait(10)
        check(what, schema)

    monkeypatch.setattr(own, "_check", slow)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(own.constraint, schema={"enum": ["slow"]})
        assert entered.wait(5)
        assert allows(own.constraint(choices=["quick"]), "quick")
        assert not large.done()
        release.set()
        assert allows(large.result(10), '"slow"')


def test_a_token_that_was_not_allowed_is_an_error_and_the_next_request_is_not_touched():
    constraint = grammars().constraint(choices=["yes"])
    with pytest.raises(EngineError, match="constrained decoding failed"):
        constraint.advance(tokenizer("qwen").encode("no")[0])
    assert allows(grammars().constraint(choices=["yes"]), "yes")


def test_a_schema_is_built_once():
    schema = json.loads(json.dumps(Order.model_json_schema()))
    grammars().constraint(schema=schema)
    known = len(grammars()._ready)
    grammars().constraint(schema=schema)
    assert len(grammars()._ready) == known
