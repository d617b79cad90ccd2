from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk

from cmat_graph.models.chat.messages import to_chunk
from cmat_graph.models.chat.parsing import Parsed, ReplyParser, parse_reply
from cmat_graph.rendering.formats import FAMILIES, HERMES, LLAMA3, MAX_CALLS, MAX_GARBLED, MISTRAL, MISTRAL_ARGS

ADD = {"a": 1, "b": [2, {"c": "}"}]}
SPECIAL = {"<|im_end|>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]"}


def parse(raw, form=HERMES, tools=("add", "say"), **more):
    return parse_reply(raw, ReplyParser(form, tools=tools, **more))


def called(parsed: Parsed):
    return [(call["name"], call["args"]) for call in parsed.calls]


@pytest.mark.parametrize("form", FAMILIES, ids=lambda form: form.name)
def test_each_family_reads_what_it_writes(form):
    parsed = parse(form.write("add", ADD), form)
    assert (called(parsed), parsed.content, parsed.invalid) == ([("add", ADD)], "", [])


@pytest.mark.parametrize("form", [HERMES, MISTRAL, MISTRAL_ARGS], ids=lambda form: form.name)
def test_several_calls_and_the_text_before_them(form):
    parsed = parse("I will.\n" + form.write("add", ADD) + form.write("say", {"text": "東京 </tool_call> \n"}), form)
    assert called(parsed) == [("add", ADD), ("say", {"text": "東京 </tool_call> \n"})]
    assert parsed.content == "I will."


def test_text_around_calls_is_kept():
    assert (
        parse(f"One. {HERMES.write('add', ADD)} Two. {HERMES.write('add', ADD)}\nThree.").content
        == "One.\nTwo.\nThree."
    )


def test_mistral_lists_several_calls_in_one_array():
    raw = '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "x"}, {"name": "say", "arguments": {}}]'
    assert called(parse(raw, MISTRAL)) == [("add", {"a": 1}), ("say", {})]


def test_mistral_names_the_tool_before_its_arguments_and_perhaps_an_id():
    raw = '[TOOL_CALLS]add[CALL_ID]abc123def[ARGS]{"a": 1}[TOOL_CALLS]say[ARGS]{}'
    assert called(parse(raw, MISTRAL_ARGS)) == [("add", {"a": 1}), ("say", {})]


def test_llama_calls_with_or_without_its_tag_and_one_after_another():
    one, two = LLAMA3.write("add", ADD), LLAMA3.write("say", {})
    assert called(parse(f"<|python_tag|>{one}", LLAMA3)) == [("add", ADD)]
    assert called(parse(f"{one}; {two}", LLAMA3)) == [("add", ADD), ("say", {})]


@pytest.mark.parametrize("form", FAMILIES, ids=lambda form: form.name)
def test_a_bare_call_of_a_known_tool_counts_and_other_json_is_an_answer(form):
    assert called(parse(' {"name": "add", "arguments": {"a": 1}}', form)) == [("add", {"a": 1})]
    for answer in ('{"name": "Bob", "parameters": {}}', '{"a": 1', '{"name": "add", "arguments": {}} or so', '{"": [}'):
        assert parse(answer, form).content == answer


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "add", "parameters": {"a": 1}}',
        '{"name": "add", "arguments": "{\\"a\\": 1}"}',
        '{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}',
        '[{"name": "add", "arguments": {"a": 1}}]',
        '{"name": "add", "arguments": {"a": 1}}}}',
        '  {"name": "add",\n "arguments": {"a": 1}}  ',
    ],
)
@pytest.mark.parametrize("close", ["</tool_call>", ""])
def test_calls_that_are_only_written_oddly_are_read(body, close):
    parsed = parse(f"<tool_call>{body}{close}")
    assert called(parsed) == [("add", {"a": 1})]
    assert parsed.content == "" or not close


def test_a_call_of_an_unknown_tool_is_a_call():
    assert called(parse(HERMES.write("fly", {}))) == [("fly", {})]


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "add", "arguments": {"a": 1',
        '{"name": "add", "arguments": [1]}',
        '{"name": "add", "arguments": {"a": NaN}}',
        '{"name": "add", "arguments": {"a": "\\ud800"}}',
        '{"name": "add", "arguments": "no"}',
        '{"name": "add", arguments}',
        '{"name": "add", "arguments": ' + '{"a": ' * 5000,
    ],
)
def test_what_is_no_call_is_an_invalid_one_that_names_its_tool(body):
    parsed = parse(f"So: <tool_call>{body}</tool_call> Done.")
    assert (parsed.calls, len(parsed.invalid)) == ([], 1)
    invalid = parsed.invalid[0]
    assert invalid["name"] == "add"
    assert invalid["args"] == f"<tool_call>{body}"[:MAX_GARBLED]
    assert invalid["error"].startswith("not a call: ")
    assert parsed.content == "So:\nDone."


def test_a_broken_call_does_not_hide_the_next():
    parsed = parse('<tool_call>{"name": oh <tool_call>{"name": "add", "arguments": {}}</tool_call>')
    assert (called(parsed), len(parsed.invalid)) == ([("add", {})], 1)


def test_without_tools_a_call_is_only_text():
    raw = HERMES.write("add", ADD)
    assert parse(raw, tools=None) == Parsed(content=raw)
    assert parse("[TOOL_CALLS] x", MISTRAL, tools=None, special=SPECIAL).content == " x"


def test_special_tokens_are_no_text():
    assert parse("a<|im_end|>b", special=SPECIAL).content == "ab"


def test_reasoning_is_told_from_content():
    parsed = parse(f"<think>\nHm, {{\n</think>\n\n4.\n{HERMES.write('add', ADD)}")
    assert (parsed.reasoning, parsed.content, called(parsed)) == ("Hm, {", "4.", [("add", ADD)])


def test_reasoning_that_the_prompt_opened_has_no_opening():
    assert parse("\nHm.\n</think>\n\n4", thinking=True) == Parsed(content="4", reasoning="Hm.")


def test_reasoning_that_never_ends_is_no_content():
    assert parse("<think>Hm. Still") == Parsed(reasoning="Hm. Still")


def test_think_marks_within_a_text_are_text():
    raw = "Write <think> and </think>.\n"
    assert parse(raw).content == raw


@pytest.mark.parametrize("raw", ["", "  \n", " a \n", "<", "<tool", "{", "<think", "a <tool_cal"])
def test_plain_text_is_untouched(raw):
    assert parse(raw).content == raw


MARKS = ["<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<|im_end|>"]
CALLS = ['{"name": "add", "arguments": {"a": "x"}}', '{"name": "add"', "add"]
CHARACTERS = ["{", "}", "[", '"', "\\", "\n", " ", "<", "é😀"]
PIECES = st.sampled_from([*MARKS, *CALLS, *CHARACTERS])


@settings(max_examples=300, deadline=None)
@given(
    raw=st.lists(PIECES, max_size=14).map("".join),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    form=st.sampled_from(FAMILIES),
    tools=st.sampled_from([None, ("add",)]),
    thinking=st.booleans(),
)
def test_what_streams_adds_up_to_the_whole(raw, cuts, form, tools, thinking):
    def parser():
        return ReplyParser(form, tools=tools, thinking=thinking, special=SPECIAL)

    whole, streaming = parse_reply(raw, parser()), parser()
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [streaming.feed(raw[a:b]) for a, b in pairwise(edges)] + [streaming.finish()]
    assert "".join(piece.content for piece in pieces) == whole.content
    assert "".join(piece.reasoning for piece in pieces) == whole.reasoning
    assert called(pieces[-1]) == called(whole)
    merged = sum((to_chunk(piece) for piece in pieces[1:]), to_chunk(pieces[0]))
    assert isinstance(merged, AIMessageChunk)
    assert [(call["name"], call["args"]) for call in merged.tool_calls] == called(whole)
    assert [(c["name"], c["args"]) for c in merged.invalid_tool_calls] == [
        (c["name"], c["args"]) for c in whole.invalid
    ]


@settings(max_examples=30, deadline=None)
@given(
    arguments=st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    ),
    form=st.sampled_from(FAMILIES),
)
def test_any_arguments_come_back(arguments, form):
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert called(parse(form.write("add", arguments), form)) == [("add", arguments)]


@pytest.mark.clock
@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>{",
        '<tool_call>{"',
        '<tool_call>{\\"</tool_call>',
        "[TOOL_CALLS]add[ARGS]{",
        "<think>",
        '{"a":',
        "<",
        " ",
    ],
)
@pytest.mark.parametrize("form", [HERMES, MISTRAL], ids=lambda form: form.name)
def test_a_hundred_thousand_characters_of_nonsense_take_no_time(unit, form):
    raw = unit * (100_000 // len(unit))
    began = time.perf_counter()
    parsed = parse(raw, form, special=SPECIAL)
    to_chunk(parsed)
    parser = ReplyParser(form, tools=["add"], special=SPECIAL)
    for at in range(0, len(raw), 5):
        parser.feed(raw[at : at + 5])
    parser.finish()
    assert time.perf_counter() - began < 3
    assert len(parsed.calls) + len(parsed.invalid) <= MAX_CALLS
