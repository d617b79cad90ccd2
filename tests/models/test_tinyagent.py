from __future__ import annotations

import asyncio
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError, EngineBusyError, PromptTooLongError
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.scripted import ScriptedEngine
from cmat_graph.rendering.formats import HERMES

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Verdict(BaseModel):
    """A judgement."""

    decision: Literal["approve", "revise"]
    score: int = Field(ge=0, le=9)


def scripted(*answers, **settings):
    return TinyAgent(engine=ScriptedEngine(list(answers)), **settings)


def card(tmp_path, name="v1", **more):
    folder = tmp_path / "checker" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(name.encode())
    return AdapterCard(name=name, node="checker", base="scripted", folder=str(folder), **more)


@pytest.fixture(scope="module")
def nano():
    return TinyAgent.load("nano", max_tokens=96)


# -- what a reply tells -----------------------------------------------------------------------------------------


def test_a_reply_tells_who_answered_what_it_took_and_how_sure_it_is():
    reply = scripted("Yes.").invoke("Is it?", logprobs=True)
    about = reply.response_metadata
    assert (about["model_name"], about["model_provider"], about["finish_reason"]) == ("scripted", "cmat-graph", "stop")
    assert 0 < about["confidence"] < 1
    assert "".join(each["token"] for each in about["logprobs"]["content"]) == "Yes.<|end|>"
    assert reply.usage_metadata["input_token_details"] == {"cache_read": 0}
    assert "logprobs" not in scripted("Yes.").invoke("Is it?").response_metadata


def test_reasoning_stands_beside_the_content():
    reply = scripted("<think>\nHm.\n</think>\n\n4").invoke("2 + 2?")
    assert (reply.text, reply.additional_kwargs) == ("4", {"reasoning_content": "Hm."})
    assert [block["type"] for block in reply.content_blocks] == ["reasoning", "text"]


def test_a_call_is_read_and_its_result_goes_back():
    model = scripted(CALL, "It is 3.").bind_tools([add])
    asked = HumanMessage("1 + 2?")
    called = model.invoke([asked])
    assert [(c["name"], c["args"]) for c in called.tool_calls] == [("add", {"a": 1, "b": 2})]
    result = add.invoke(called.tool_calls[0])
    assert isinstance(result, ToolMessage)
    assert model.invoke([asked, called, result]).text == "It is 3."
    prompt = model.bound.engine.tokenizer.decode(model.bound.engine.questions[-1].prompt)
    assert '"arguments": {"a": 1, "b": 2}' in prompt
    assert "<tool_response>3</tool_response>" in prompt


# -- streaming and async ----------------------------------------------------------------------------------------


def test_a_stream_adds_up_to_the_reply():
    model = scripted(f"<think>Hm.</think>I add.\n{CALL}").bind_tools([add])
    whole, chunks = model.invoke("?"), list(model.stream("?"))
    merged = sum(chunks[1:], chunks[0])
    assert len(chunks) > 4
    assert (merged.text, merged.additional_kwargs) == (whole.text, whole.additional_kwargs)
    assert [c["args"] for c in merged.tool_calls] == [c["args"] for c in whole.tool_calls]
    assert merged.usage_metadata == whole.usage_metadata
    assert merged.response_metadata == whole.response_metadata


@pytest.mark.clock
def test_content_comes_before_the_reply_is_whole():
    model = TinyAgent(engine=ScriptedEngine(["one two three four five six"], seconds=0.1))
    began = time.perf_counter()
    arrivals = [time.perf_counter() - began for _ in model.stream("?")]
    assert arrivals[0] < arrivals[-1] / 2


@pytest.mark.clock
@pytest.mark.asyncio
async def test_async_replies_wait_together():
    model = TinyAgent(engine=ScriptedEngine(["one two three"], seconds=0.1))
    alone = await _timed(model.ainvoke("?"))
    together = await _timed(asyncio.gather(*(model.ainvoke("?") for _ in range(10))))
    assert together < 5 * alone
    assert "".join([chunk.text async for chunk in model.astream("?")]) == "one two three"


async def _timed(work):
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


@pytest.mark.asyncio
async def test_a_cancelled_task_gives_its_request_up():
    engine = ScriptedEngine(["word " * 500], seconds=0.01, capacity=1)
    task = asyncio.create_task(TinyAgent(engine=engine).ainvoke("?"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(engine.asubmit([5]), 3)  # there is room again


def test_a_stream_that_is_left_gives_its_request_up():
    engine = ScriptedEngine(["word " * 500], seconds=0.005, capacity=1)
    for chunk in TinyAgent(engine=engine).stream("?"):
        if chunk.text:
            break
    del chunk
    assert engine.submit([5], timeout=2)


def test_a_call_past_its_time_is_given_up():
    model = TinyAgent(engine=ScriptedEngine(["word " * 500], seconds=0.01, capacity=1), timeout=0.1)
    for ask in (lambda: model.invoke("?"), lambda: list(model.stream("?")), lambda: asyncio.run(model.ainvoke("?"))):
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            ask()
        time.sleep(0.05)


def test_a_full_engine_is_a_clear_error_when_the_time_is_up():
    model = TinyAgent(engine=ScriptedEngine(["word " * 500], seconds=0.01, capacity=1), timeout=0.2)
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(model.invoke, "?") for _ in range(2)]
        errors = {type(outcome.exception()) for outcome in outcomes}
    assert errors <= {TimeoutError, EngineBusyError}


# -- settings ---------------------------------------------------------------------------------------------------


def test_settings_of_the_model_and_of_the_call_reach_the_engine():
    model = scripted("ok", temperature=0.5, top_k=7, stop_sequences=["END"], seed=3)
    model.invoke("?")
    model.invoke("?", temperature=0.0, min_p=0.1, repetition_penalty=1.2, max_tokens=9, stop=["."])
    first, second = (question.sampling for question in model.engine.questions)
    assert (first.temperature, first.top_k, first.stop, first.seed) == (0.5, 7, ("END",), 3)
    assert (second.temperature, second.min_p, second.repetition_penalty) == (0.0, 0.1, 1.2)
    assert (second.max_tokens, second.stop, second.top_k) == (9, (".",), 7)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"max_tokens": 0}, {"top_p": 2}, {"temprature": 0.5}])
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        scripted("ok").invoke("?", **wrong)


def test_thinking_is_switched_by_the_models_own_template(tmp_path):
    template = (
        "{{ messages[0].content }}{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    )
    model = TinyAgent(engine=ScriptedEngine(["yes"], chat_template=template))

    def prompts(**more):
        model.invoke("?", **more)
        return model.engine.tokenizer.decode(model.engine.questions[-1].prompt)

    assert prompts() == "?"
    assert prompts(thinking=False) == "?<think></think>"
    assert prompts(choices=["yes"]) == "?<think></think>"
    assert prompts(choices=["yes"], thinking=True) == "?"


def test_nothing_on_this_machine_shows_in_what_is_traced(tmp_path):
    model = TinyAgent(engine=ScriptedEngine(["ok"]), model=str(tmp_path / "Qwen3-0.6B"))
    told = [str(model._identifying_params), str(model._get_ls_params()), repr(model), str(model.invoke("?"))]
    assert "Qwen3-0.6B" in told[0]
    assert not [text for text in told[:2] + told[3:] if str(tmp_path) in text]
    assert not model.is_lc_serializable()


# -- whose reply ------------------------------------------------------------------------------------------------


def test_a_call_names_the_adapter_that_answers(tmp_path):
    engine = ScriptedEngine(lambda question: question.adapter or "base")
    model = TinyAgent(engine=engine)
    key = engine.load_adapter(card(tmp_path), name="checker")
    assert model.invoke("?").text == "base"
    reply = model.invoke("?", model="checker")
    assert (reply.text, reply.response_metadata["model_name"], reply.response_metadata["adapter"]) == (
        key,
        "checker",
        "checker/v1",
    )
    assert TinyAgent(engine=engine, adapter="checker").invoke("?").text == key
    for base in ("", "scripted"):
        assert TinyAgent(engine=engine, adapter="checker").invoke("?", model=base).text == "base"


def test_a_name_is_looked_up_in_the_registry_and_loaded(tmp_path):
    registry = AdapterRegistry(tmp_path)
    registry.add(AdapterCard(name="v1", node="checker", base="scripted"), lambda folder: card(tmp_path))
    model = TinyAgent(engine=ScriptedEngine(lambda question: question.adapter or "base"))
    model._registry = registry
    assert model.invoke("?", model="checker").text.startswith("checker/v1@")
    for unknown in ("writer", "../checker", str(tmp_path / "checker" / "v1"), "checker/v1/"):
        with pytest.raises(AdapterNotFoundError, match=r"known: scripted, .*checker/v1"):
            model.invoke("?", model=unknown)


def test_a_hot_swap_changes_who_answers_to_a_name(tmp_path):
    engine = ScriptedEngine(lambda question: question.adapter)
    model = TinyAgent(engine=engine, adapter="checker")
    keys = [engine.load_adapter(card(tmp_path, name), name="checker") for name in ("v1",)]
    assert model.invoke("?").text == keys[0]
    keys.append(engine.load_adapter(card(tmp_path, "v2"), name="checker"))
    assert model.invoke("?").text == keys[1]


def test_a_copy_with_another_adapter_answers_with_that(tmp_path):
    engine = ScriptedEngine(lambda question: question.adapter or "base")
    pinned = TinyAgent(engine=engine, adapter="checker/v1")
    pinned._card, pinned._key = card(tmp_path), engine.load_adapter(card(tmp_path))
    other = engine.load_adapter(card(tmp_path, "v2"))
    assert pinned.invoke("?").text == pinned._key
    assert pinned.model_copy(update={"adapter": "checker/v2"}).invoke("?").text == other
    assert pinned.model_copy(update={"adapter": ""}).invoke("?").text == "base"


def test_a_calibrated_adapter_says_what_its_confidence_is_worth(tmp_path):
    engine = ScriptedEngine(["ok"])
    engine.load_adapter(card(tmp_path, calibration={"a": 0.0, "b": 0.0}), name="checker")
    about = TinyAgent(engine=engine).invoke("?", model="checker").response_metadata
    assert about["confidence"] == pytest.approx(0.5)
    assert about["raw_confidence"] > 0.5


# -- constrained replies ----------------------------------------------------------------------------------------


def test_a_forced_call_is_valid_even_from_a_model_that_knows_no_tools(nano):
    class Look(BaseModel):
        """Look at a table."""

        table: Literal["users", "orders"]
        rows: int = Field(ge=1, le=99)

    for choice in ("any", "required", True, "Look"):
        reply = nano.bind_tools([Look], tool_choice=choice).invoke("How many users are there?")
        assert Look.model_validate(reply.tool_calls[0]["args"])
        assert reply.text == ""


def test_a_choice_and_an_object_even_from_a_model_that_knows_nothing(nano):
    assert nano.invoke("Is it?", choices=["approve", "revise"]).text in ("approve", "revise")
    for method in ("json_schema", "function_calling"):
        assert isinstance(nano.with_structured_output(Verdict, method=method).invoke("Judge."), Verdict)
        assert isinstance(asyncio.run(nano.with_structured_output(Verdict, method=method).ainvoke("Judge.")), Verdict)


def test_a_tool_that_was_not_bound_cannot_be_demanded():
    with pytest.raises(ConfigurationError, match="names no bound tool; known: add"):
        scripted("ok").bind_tools([add], tool_choice="sub").invoke("?")


def test_with_no_tool_choice_calls_are_only_text():
    reply = scripted(CALL).bind_tools([add], tool_choice="none").invoke("?")
    assert (reply.text, reply.tool_calls) == (CALL, [])


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_an_object_is_read_by_its_class_and_a_dict_by_its_schema(method):
    good = '{"decision": "revise", "score": 3}'

    class Typed(TypedDict):
        """A judgement."""

        decision: str
        score: int

    schemas = (Verdict, Typed, Verdict.model_json_schema())
    parsed = [scripted(good).with_structured_output(schema, method=method).invoke("?") for schema in schemas]
    assert parsed == [Verdict(decision="revise", score=3), *[{"decision": "revise", "score": 3}] * 2]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_an_object_that_was_cut_says_so(method):
    whole = '{"decision": "revise", "score": 3}'
    answer = (
        f'<tool_call>\n{{"name": "Verdict", "arguments": {whole}}}\n</tool_call>'
        if method == "function_calling"
        else whole
    )
    model = scripted(answer, max_tokens=12)
    with pytest.raises(OutputParserException, match="raise max_tokens"):
        model.with_structured_output(Verdict, method=method).invoke("?")
    found = model.with_structured_output(Verdict, method=method, include_raw=True).invoke("?")
    assert isinstance(found["raw"], AIMessage)
    assert (found["parsed"], type(found["parsing_error"])) == (None, OutputParserException)


def test_an_object_that_its_class_refuses_says_why():
    with pytest.raises(OutputParserException, match="decision"):
        scripted('{"decision": "odd"}').with_structured_output(Verdict, method="json_mode").invoke("?")


def test_a_schema_and_tools_together_leave_the_model_the_choice():
    form = {"type": "json_schema", "json_schema": {"name": "Verdict", "schema": Verdict.model_json_schema()}}
    model = scripted(CALL, '{"decision": "approve", "score": 9}').bind_tools([add], response_format=form)
    assert model.invoke("?").tool_calls
    assert Verdict.model_validate_json(model.invoke("?").text)


def test_an_agent_of_langchain_calls_tools_and_answers_with_an_object():
    agents = pytest.importorskip("langchain.agents")
    structured = pytest.importorskip("langchain.agents.structured_output")
    for strategy in (structured.ProviderStrategy, structured.ToolStrategy):
        verdict = {"decision": "approve", "score": 9}
        by_tool = strategy is structured.ToolStrategy
        last = HERMES.write("Verdict", verdict) if by_tool else json.dumps(verdict)
        agent = agents.create_agent(scripted(CALL, last), [add], response_format=strategy(Verdict))
        state = agent.invoke({"messages": [HumanMessage("1 + 2?")]})
        assert state["structured_response"] == Verdict(**verdict)
        assert next(m.content for m in state["messages"] if m.type == "tool") == "3"


def test_a_schema_that_refers_to_itself(nano):
    class Tree(BaseModel):
        """A tree."""

        value: Literal[1, 2]
        children: list[Tree] = Field(max_length=1)

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    good = '{"value": 1, "children": [{"value": 2, "children": []}]}'
    assert scripted(good).with_structured_output(Tree).invoke("?").children[0].value == 2
    called = scripted(HERMES.write("Tree", json.loads(good))).with_structured_output(Tree, method="function_calling")
    assert called.invoke("?").children[0].value == 2


def test_an_unknown_response_format_is_refused():
    with pytest.raises(ConfigurationError, match="json_schema"):
        scripted("ok").invoke("?", response_format={"type": "xml"})
    with pytest.raises(ConfigurationError, match="no method"):
        scripted("ok").with_structured_output(Verdict, method="magic")


# -- counting ---------------------------------------------------------------------------------------------------


def test_tokens_are_counted_as_the_prompt_takes_them(nano):
    asked = [SystemMessage("Rules."), HumanMessage("How many users are there?")]
    assert nano.get_num_tokens_from_messages(asked) == nano.invoke(asked).usage_metadata["input_tokens"]
    assert nano.get_num_tokens_from_messages(asked, tools=[add]) > nano.get_num_tokens_from_messages(asked) + 20
    assert nano.get_num_tokens_from_messages([]) == 0


def test_a_prompt_past_the_window_is_refused_before_it_is_queued(nano):
    with pytest.raises(PromptTooLongError, match="fills the window"):
        nano.invoke("word " * 100_000)


# -- what cannot be -----------------------------------------------------------------------------------------------


def test_two_registries_over_one_engine_do_not_answer_for_each_other(tmp_path):
    engine = ScriptedEngine(lambda question: question.adapter)
    models, keys = [], []
    for place in ("here", "there"):
        (model := TinyAgent(engine=engine))._registry = AdapterRegistry(tmp_path / place)
        keys.append(_register(model._registry, "v1", weights=place).key)
        models.append(model)
    assert [model.invoke("?", model="checker/v1").text for model in models] == keys
    assert [model.invoke("?", model="checker").text for model in models] == keys
    assert len(set(keys)) == 2


def test_a_node_is_looked_up_anew_at_each_call(tmp_path):
    registry = AdapterRegistry(tmp_path)
    old, new = _register(registry, "old"), _register(registry, "new")
    model = TinyAgent(engine=ScriptedEngine(lambda question: question.adapter), adapter="checker")
    model._registry = registry
    for card_ in (old, new, old):
        registry.promote(card_)
        assert model.invoke("?").text == model.invoke("?", model="checker").text == card_.key


def _register(registry, name, *, weights=""):
    def write(folder):
        (folder / "adapter_model.safetensors").write_text(weights or name)
        return AdapterCard(name=name, node="checker", base="scripted")

    return registry.add(AdapterCard(name=name, node="checker", base="scripted"), write)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": "hot"}, "temperature is a number"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_tokens": 3.5}, "max_tokens is a whole number"),
        ({"top_k": 10**30}, "top_k"),
        ({"seed": "a"}, "seed"),
        ({"stop": [3]}, "stop takes 16 strings"),
        ({"stop": [f"{number}." for number in range(17)]}, "stop takes 16 strings"),
        ({"stop": "x" * 513}, "512 characters"),
        ({"choices": "yes"}, "a list of texts"),
        ({"choices": ["\ud800"]}, "half a character"),
        ({"choices": ["yes<|end|>"]}, "<|end|>"),
        ({"tools": [{"name": "add", "input_schema": {}}]}, "bind_tools"),
    ],
)
def test_what_no_model_can_do_is_refused_before_the_engine_sees_it(wrong, said):
    model = scripted("ok")
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        model.invoke("?", **wrong)
    assert not model.engine.questions


def test_messages_that_cannot_be_read_are_refused():
    for odd in ([], "\ud800"):
        with pytest.raises(ConfigurationError):
            scripted("ok").invoke(odd)


def test_a_schema_nested_too_deep_is_refused():
    deep = {"type": "boolean"}
    for _ in range(3000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(ConfigurationError, match="nested too deep"):
        scripted("ok").invoke("?", response_format={"type": "json_schema", "json_schema": {"schema": deep}})


def test_a_stop_string_need_not_stand_in_a_list():
    assert scripted("Go on. Action").invoke("?", stop="Action").text == "Go on. "
    assert scripted("Go on. Action", stop="Action").invoke("?").text == "Go on. "


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"seed": 2**70}])
def test_a_wrong_field_is_refused_when_the_model_is_made(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        scripted("ok", **wrong)
    with pytest.raises(ConfigurationError, match="temprature"):
        TinyAgent.load("nano", temprature=1)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_what_only_a_class_can_check_is_left_to_it(nano, method):
    class Report(BaseModel):
        """A report."""

        flags: set[bool] = Field(max_length=2)
        code: bytes = Field(max_length=3)
        share: float = Field(ge=0, le=1)

    assert isinstance(nano.with_structured_output(Report, method=method).invoke("Report."), Report)
    with pytest.raises(ConfigurationError, match="uniqueItems"):
        nano.with_structured_output({"title": "a", "type": "array", "uniqueItems": True}).invoke("?")
