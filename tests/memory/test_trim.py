"""`trim`: short-term memory for any LangChain app."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    merge_message_runs,
    trim_messages,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.prompts import ChatPromptTemplate

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory import trim
from cmat_graph.testing import ScriptedChatModel

SYSTEM = SystemMessage("Be brief.")


def chat(*texts):
    return [(HumanMessage, AIMessage)[i % 2](text) for i, text in enumerate(texts)]


def acting(number, *results, text=""):
    """One turn of an agent with its tools; a result with a `!` is an error."""
    ids = [f"{number}.{i}" for i in range(len(results))]
    calls = [{"name": "look", "args": {}, "id": each} for each in ids]
    said = [AIMessage(text, tool_calls=calls)]
    for each, result in zip(ids, results, strict=True):
        said.append(ToolMessage(result, tool_call_id=each, status="error" if "!" in result else "success"))
    return said


def texts(messages):
    return [message.text for message in messages]


def words(messages):
    return sum(len(message.text.split()) for message in messages)


def test_what_fits_is_left_alone():
    said = [SYSTEM, *chat("a", "b", "c")]
    assert trim(said, max_tokens=1_000) == said
    assert trim([], max_tokens=0) == []


def test_the_task_the_last_question_and_the_last_turns_stay():
    said = [SYSTEM, *chat("task", "1", "two", "3", "four", "5", "now", "7")]
    kept = trim(said, max_tokens=7, token_counter=len)
    assert texts(kept) == ["Be brief.", "task", "[3 earlier messages were left out]", "four", "5", "now", "7"]


def test_an_agent_keeps_its_task_the_latest_error_and_its_last_turns():
    said = [SYSTEM, HumanMessage("task"), *acting(1, "no!"), *acting(2, "ok", "bad!", "ok")]
    for number in range(3, 30):
        said += acting(number, f"seen {number}")
    kept = trim(said, max_tokens=11, token_counter=len)
    assert texts(kept) == [
        *("Be brief.", "task", "[52 earlier messages were left out]"),
        *("", "ok", "bad!", "ok", "", "seen 28", "", "seen 29"),
    ]


def test_an_endless_older_error_is_cut_in_its_middle():
    said = [HumanMessage("task"), *acting(1, "bad! " + "x" * 50_000 + " end"), *acting(2, "ok"), *acting(3, "ok")]
    kept = trim(said, max_tokens=500)
    assert count_tokens_approximately(kept) <= 500
    assert kept[2].text.startswith("bad! xx")
    assert kept[2].text.endswith("xx end")
    assert said[2].text.endswith("xx end")
    assert len(said[2].text) == 50_009


def test_images_in_an_endless_error_stay_whole():
    picture = {"type": "image", "source_type": "base64", "data": "A" * 3_000, "mime_type": "image/png"}
    said = [HumanMessage("task"), *acting(1, "bad!"), *acting(2, "ok"), *acting(3, "ok")]
    said[2].content = [picture, {"type": "text", "text": "x" * 50_000}]
    kept = trim(said, max_tokens=400)
    assert kept[2].content[0] == picture
    assert len(kept[2].content[1]["text"]) < 2_000


def test_it_takes_what_trim_messages_takes():
    prompt = ChatPromptTemplate([("system", "Be brief."), ("placeholder", "{said}")])
    said = [("user", "task"), ("ai", "1"), {"role": "user", "content": "now"}]
    model = ScriptedChatModel(replies=["Well."])
    chain = prompt | trim(max_tokens=4, token_counter=len) | model
    chain.invoke({"said": said})
    assert texts(model.calls[0]) == ["Be brief.", "task", "1", "now"]
    chain.invoke({"said": [*said[:2], ("user", "2"), ("ai", "3"), *said[2:]]})
    assert texts(model.calls[1]) == ["Be brief.", "task", "[3 earlier messages were left out]", "now"]


def of_one(message: BaseMessage) -> int:
    return len(message.text)


def of_all(messages: list[BaseMessage]) -> int:
    return sum(len(message.text) for message in messages)


class OfItsOwn(FakeListChatModel):
    responses: list[str] = []

    def get_num_tokens_from_messages(self, messages, tools=None):
        return of_all(messages)


@pytest.mark.parametrize("counter", [of_one, of_all, OfItsOwn()])
def test_any_counter_of_trim_messages_counts(counter):
    said = chat("task", "a" * 60, "b", "c" * 30, "d")
    kept = trim(said, max_tokens=70, token_counter=counter)
    assert texts(kept) == ["task", "[1 earlier message was left out]", "b", "c" * 30, "d"]


def test_what_counts_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="'tiktoken' counts no tokens"):
        trim([], max_tokens=75, token_counter="tiktoken")


# -- summaries ----------------------------------------------------------------------------------------------------


def test_a_model_sums_up_what_is_left_out():
    model = ScriptedChatModel(replies=["The user likes blue."])
    said = [SYSTEM, *chat("Paint the roof.", "What colour?", "Blue.", "word " * 200, "Now the door.")]
    kept = trim(said, max_tokens=120, summarizer=model)
    note = "[3 earlier messages were left out; in short:]\n> The user likes blue."
    assert texts(kept) == ["Be brief.", "Paint the roof.", note, "Now the door."]
    asked = model.calls[0][-1].text
    assert "AI: What colour?\nHuman: Blue.\nAI: word" in asked
    assert "Paint the roof." not in asked
    assert "Now the door." not in asked


def test_trimming_what_was_trimmed_sums_up_each_message_once():
    model = ScriptedChatModel(replies=["first notes", "second notes"])
    said = chat("task", "one", "two", "three", "four")
    said = trim(said, max_tokens=4, token_counter=len, summarizer=model)
    assert texts(said) == ["task", "[3 earlier messages were left out; in short:]\n> first notes", "four"]
    said = trim([*said, AIMessage("five"), HumanMessage("six")], max_tokens=4, token_counter=len, summarizer=model)
    assert texts(said) == ["task", "[5 earlier messages were left out; in short:]\n> second notes", "six"]
    assert model.calls[1][-1].text == "Your notes so far:\nfirst notes\nWhat came then:\nHuman: four\nAI: five"
    assert trim(said, max_tokens=3, token_counter=len, summarizer=model) == said
    assert len(model.calls) == 2


def test_any_function_or_runnable_may_sum_up_sync_and_async():
    said = chat("task", "one", "two", "three", "four")
    chain = trim(max_tokens=3, token_counter=len, summarizer=lambda messages: f"asked {len(messages)}")
    told = "[3 earlier messages were left out; in short:]\n> asked 2"
    assert texts(chain.invoke(said)) == texts(asyncio.run(chain.ainvoke(said))) == ["task", told, "four"]
    slow = ScriptedChatModel(replies=["by a model"], seconds=0.01)
    kept = asyncio.run(trim(max_tokens=3, token_counter=len, summarizer=slow).ainvoke(said))
    assert kept[1].text.endswith("> by a model")


def test_endless_notes_are_cut_to_the_budget():
    said = chat("task", "one " * 500, "two", "three " * 500, "four")
    kept = trim(said, max_tokens=100, summarizer=lambda _: "\u6f22\u5b57 " * 5_000)
    assert "in short:]\n> \u6f22" in kept[1].text
    assert count_tokens_approximately(kept) <= 100


@pytest.mark.parametrize("reply", [OSError("down"), "  "])
def test_a_summarizer_that_fails_leaves_the_notice_and_the_notes_so_far(reply, caplog, monkeypatch):
    monkeypatch.setattr("cmat_graph.memory.trimming._warned", set())
    model = ScriptedChatModel(replies=["notes", reply])
    said = trim(chat("task", "1", "2", "3", "4"), max_tokens=3, token_counter=len, summarizer=model)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            kept = trim([*said, AIMessage("5"), HumanMessage("6")], max_tokens=3, token_counter=len, summarizer=model)
    assert texts(kept) == ["task", "[5 earlier messages were left out; in short:]\n> notes", "6"]
    assert len(caplog.records) == 1
    bare = trim(chat("task", "1", "2", "3", "4"), max_tokens=3, token_counter=len, summarizer=model)
    assert texts(bare) == ["task", "[3 earlier messages were left out]", "4"]


def test_a_notice_that_was_merged_into_the_task_is_not_lost_with_it():
    said = merge_message_runs(trim(chat("task", "1", "2", "3", "4"), max_tokens=3, token_counter=len))
    assert "task" in said[0].text
    again = trim([*said, *chat("x", "5", "6")[1:]], max_tokens=2, token_counter=len)
    assert "task" in again[0].text


# -- whatever is said ---------------------------------------------------------------------------------------------


@st.composite
def conversations(draw):
    """A valid chat of people and an agent with tools."""
    said = [SystemMessage("s " * draw(st.integers(1, 4))) for _ in range(draw(st.integers(0, 2)))]
    results = st.lists(st.sampled_from(["ok", "seen " * 5, "bad!", "bad! " * 9]), min_size=1, max_size=3)
    for exchange in range(draw(st.integers(1, 5))):
        said.append(HumanMessage(f"question {exchange} " * draw(st.integers(1, 3))))
        for number in range(draw(st.integers(0, 4))):
            said += acting(f"{exchange}.{number}", *draw(results), text="thought " * draw(st.integers(0, 5)))
        if draw(st.booleans()):
            said.append(AIMessage(f"answer {exchange}"))
    return said


def is_valid(messages):
    """Systems first, then a person; every call has its results behind it, and every result its call."""
    types = [message.type for message in messages if message.type != "system"]
    if messages[: len(messages) - len(types)] != [m for m in messages if m.type == "system"] or types[:1] != ["human"]:
        return False
    waiting = []
    for message in messages:
        if waiting and (message.type != "tool" or message.tool_call_id not in waiting):
            return False
        if message.type == "tool":
            if message.tool_call_id not in waiting:
                return False
            waiting.remove(message.tool_call_id)
        waiting += [call["id"] for call in getattr(message, "tool_calls", [])]
    return not waiting


@given(conversations(), st.integers(0, 150), st.sampled_from(["approximate", words, len]), st.booleans())
def test_what_is_left_is_a_valid_chat_within_its_budget_that_says_how_much_is_missing(said, budget, counter, summed):
    summarizer = (lambda _: "notes " * 40) if summed else None
    kept = trim(said, max_tokens=budget, token_counter=counter, summarizer=summarizer)
    count = count_tokens_approximately if counter == "approximate" else counter
    assert is_valid(kept)
    told = [message for message in kept if "cmat_left_out" in message.additional_kwargs]
    stayed = [message for message in kept if message not in told]
    assert [m for m in said if m in stayed] == stayed  # nothing is out of order
    assert len(stayed) + sum(m.additional_kwargs["cmat_left_out"] for m in told) == len(said)
    least = trim(said, max_tokens=-1, token_counter=counter)
    assert count(kept) <= max(budget, count(least))
    assert trim(kept, max_tokens=budget, token_counter=counter, summarizer=summarizer) == kept


@given(conversations(), st.integers(0, 100))
def test_the_system_prompt_the_task_the_last_question_and_the_latest_error_never_go(said, budget):
    kept = texts(trim(said, max_tokens=budget, token_counter=words))
    asked = [message.text for message in said if message.type == "human"]
    wrong = [message.text for message in said if message.type == "tool" and message.status == "error"]
    assert {*(m.text for m in said if m.type == "system"), asked[0], asked[-1], said[-1].text, *wrong[-1:]} <= set(kept)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12), st.integers(0, 150))
def test_beside_task_and_notice_it_keeps_what_trim_messages_keeps(sizes, budget):
    task, *rest = chat(*(f"{i} " * size for i, size in enumerate(sizes)))
    kept = trim([SYSTEM, task, *rest], max_tokens=budget, token_counter=words)
    notice = [message for message in kept if "cmat_left_out" in message.additional_kwargs]
    theirs = trim_messages(
        [SYSTEM, *rest],
        max_tokens=budget - words([task, *notice]),
        token_counter=words,
        strategy="last",
        include_system=True,
        start_on="human" if notice else None,
    )
    if any(message.type == "human" for message in theirs):  # else not even the last question fits, which ours keeps
        assert [message for message in kept if message not in [task, *notice]] == theirs
