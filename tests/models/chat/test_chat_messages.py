from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.chat.messages import to_chat


def test_a_conversation_with_a_call_and_its_result():
    called = AIMessage("Let me see.", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "x"}])
    chat = to_chat(
        [SystemMessage("Rules."), HumanMessage("Add."), called, ToolMessage("2", tool_call_id="x", name="add")]
    )
    assert chat == [
        {"role": "system", "content": "Rules."},
        {"role": "user", "content": "Add."},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"type": "function", "id": "x", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "x", "name": "add"},
    ]


def test_texts_in_a_list_are_joined():
    blocks = ["One.", {"type": "text", "text": "Two."}]
    assert to_chat([HumanMessage(blocks)])[0]["content"] == "One.\nTwo."
    pieces = [
        {"type": "reasoning", "reasoning": "Hm."},
        {"type": "text", "text": "So"},
        {"type": "text", "text": "me."},
    ]
    assert to_chat([AIMessage(pieces)])[0]["content"] == "Some."
    assert (
        to_chat([ToolMessage([{"type": "json", "json": {"a": "é"}}], tool_call_id="x")])[0]["content"] == '{"a": "é"}'
    )


@pytest.mark.parametrize("kind", ["image", "image_url", "audio", "file", "video"])
def test_what_is_no_text_is_refused(kind):
    with pytest.raises(ConfigurationError, match=f"cannot read a block of type '{kind}'"):
        to_chat([HumanMessage([{"type": kind, "url": "https://example.com/a.png"}])])


def test_reasoning_goes_back_to_the_model_beside_the_content():
    said = AIMessage("4", additional_kwargs={"reasoning_content": "2 + 2"})
    assert to_chat([said]) == [{"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}]


def test_a_call_that_was_none_is_shown_as_it_was():
    broken = {"name": None, "args": "<tool_call>{oh", "id": "x", "error": "no JSON", "type": "invalid_tool_call"}
    calls = to_chat([AIMessage("", invalid_tool_calls=[broken])])[0]["tool_calls"]
    assert calls[0]["function"] == {"name": "unknown", "arguments": "<tool_call>{oh"}


def test_roles_of_ones_own():
    assert [m["role"] for m in to_chat([ChatMessage("Hi", role="developer"), ChatMessage("Hi", role="user")])] == [
        "system",
        "user",
    ]
    with pytest.raises(ConfigurationError, match="cannot be told to a model"):
        to_chat([RemoveMessage(id="x")])
