"""A fallback that is no TinyAgent: what it does not know, how it fails, and objects by a schema."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from handover_replies import said
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from cmat_graph.errors import EngineError, PromptTooLongError
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.handover import HandOver, Trial
from cmat_graph.models.handover.outages import DOWN, is_outage
from cmat_graph.models.scripted import ScriptedEngine
from cmat_graph.testing import ScriptedChatModel

YES_NO = ["yes", "no"]


class Person(BaseModel):
    name: str
    age: int


BOB = Person(name="Bob", age=12)
BOB_TEXT = json.dumps(BOB.model_dump())


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Server:
    """An OpenAI server with one answer, or one status."""

    def __init__(self):
        self.asked, self.status, self.text = [], 200, "ok"
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                message = {"role": "assistant", "content": server.text}
                choices = [{"index": 0, "finish_reason": "stop", "message": message}]
                told = {"id": "1", "object": "chat.completion", "created": 1, "model": "big", "choices": choices}
                body = json.dumps(told if server.status == 200 else {"error": {"message": "no"}}).encode()
                self.send_response(server.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def model(self, port=None):
        url = f"http://127.0.0.1:{port or self.http.server_port}/v1"
        return ChatOpenAI(base_url=url, api_key="none", model="big", max_retries=0, timeout=5)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def small(*replies, probability=0.2, base="small"):
    return TinyAgent(engine=ScriptedEngine(replies, probability=probability, base=base))


def test_what_only_a_tiny_agent_knows_reaches_no_other(server):
    server.text = "Yes."
    pair = HandOver(primary=small("no"), fallback=server.model())
    told = {"thinking": False, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "model": "", "temperature": 0.5}
    assert pair.invoke("Is 7 prime?", choices=YES_NO, **told).text == "yes"
    pair.bind_tools([add]).invoke("Is 7 prime?", **told)
    first, second = server.asked
    assert not {"choices", *told} & set(first) - {"model", "temperature"}
    assert (first["temperature"], first["model"]) == (0.5, "big")
    assert [tool["function"]["name"] for tool in second["tools"]] == ["add"]
    assert first["messages"][-1]["content"].endswith("\nyes\nno")
    assert pair.counts == {"replies": 2, "unsure": 2}


@pytest.mark.parametrize("answer", ["yes", " Yes.", '"yes"', "**YES**"])
def test_a_choice_is_found_in_any_way_to_ask(answer, model):
    pair = HandOver(primary=model(said("no", 0.1)), fallback=model(answer))

    async def later():
        chunks = [chunk async for chunk in pair.astream("?", choices=YES_NO)]
        return (await pair.ainvoke("?", choices=YES_NO)).text, "".join(chunk.text for chunk in chunks)

    assert pair.invoke("?", choices=YES_NO).text == "yes"
    assert "".join(chunk.text for chunk in pair.stream("?", choices=YES_NO)) == "yes"
    assert asyncio.run(later()) == ("yes", "yes")


def test_choices_that_differ_by_little_are_told_apart(model):
    pair = HandOver(primary=model(said("A", 0.1)), fallback=model("a", "A"))
    assert [pair.invoke("?", choices=["A", "a"]).text for _ in range(2)] == ["a", "A"]


def test_an_answer_that_is_no_choice_lets_the_unsure_one_stand(model):
    pair = HandOver(primary=model(said("no", 0.1)), fallback=model("It depends."))
    reply = pair.invoke("?", choices=YES_NO)
    assert (reply.text, reply.response_metadata["handed_over"]) == ("no", False)
    assert "none of the choices" in reply.response_metadata["hand_over_reason"]
    assert pair.counts == {"replies": 1, "unsure": 1, "fallback_invalid": 1}
    failing = HandOver(primary=model(EngineError("NaN")), fallback=model("It depends."))
    with pytest.raises(OutputParserException, match="none of the 2 choices"):
        failing.invoke("?", choices=YES_NO)


def test_a_trial_of_another_kind_of_model_takes_them_too(model):
    one = Trial(current=small("no"), candidate=model("Yes.", name="new"), share=1.0)
    assert one.invoke("?", choices=YES_NO, top_k=5).text == "yes"
    assert one.result().outcomes["candidate"].episodes == 0  # it did not fail


# -- what is down, and what is a mistake ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_unsure_reply_stands_when_the_server_cannot_answer(status, server):
    server.status = status
    pair = HandOver(primary=small("unsure"), fallback=server.model())
    assert pair.invoke("?").text == "unsure"
    assert pair.counts["fallback_down"] == 1


def test_an_unsure_reply_stands_when_nobody_is_there(server):
    pair = HandOver(primary=small("unsure"), fallback=server.model(port=1))
    assert pair.invoke("?").text == "unsure"


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_mistake_with_the_server_is_seen(status, server):
    server.status = status
    pair = HandOver(primary=small("unsure"), fallback=server.model())
    with pytest.raises(Exception, match=str(status)):
        pair.invoke("?")


@pytest.mark.parametrize("mistake", [TypeError("unexpected keyword"), KeyError("x"), PromptTooLongError("long")])
def test_a_mistake_in_the_fallback_is_seen_in_every_way(mistake, model):
    pair = HandOver(primary=model(said("unsure", 0.1)), fallback=model(mistake))

    async def later():
        return [chunk async for chunk in pair.astream("?")]

    for ask in (
        lambda: pair.invoke("?"),
        lambda: list(pair.stream("?")),
        lambda: asyncio.run(pair.ainvoke("?")),
        lambda: asyncio.run(later()),
    ):
        with pytest.raises(type(mistake)):
            ask()
    assert "fallback_down" not in pair.counts


def test_more_may_count_as_down(model):
    pair = HandOver(
        primary=model(said("unsure", 0.1)), fallback=model(PromptTooLongError("long")), fallback_failures=(ValueError,)
    )
    assert pair.invoke("?").text == "unsure"


def test_a_primary_behind_a_server_may_be_down_too(server, model):
    server.status = 503
    reply = HandOver(primary=server.model(), fallback=model("large")).invoke("?")
    assert (reply.text, reply.response_metadata["hand_over_reason"]) == ("large", "failed")
    server.status = 401
    with pytest.raises(Exception, match="401"):
        HandOver(primary=server.model(), fallback=model("large")).invoke("?")


def test_what_clients_raise_is_known_by_status_or_name():
    class Refused(Exception):
        def __init__(self, status):
            self.response = type("Response", (), {"status_code": status})()

    class TransportError(Exception):
        pass

    class ReadTimeout(TransportError):
        pass

    told = [is_outage(exc, DOWN) for exc in (Refused(502), ReadTimeout(), Refused(403), Exception(503))]
    assert told == [True, True, False, False]


# -- objects by a schema ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_both_answer_with_objects(method):
    sure, unsure = small(BOB_TEXT, probability=0.99), small('{"name": "X", "age": 1}')
    assert HandOver(primary=sure, fallback=unsure).with_structured_output(Person, method=method).invoke("?") == BOB
    assert HandOver(primary=unsure, fallback=sure).with_structured_output(Person, method=method).invoke("?") == BOB
    one = Trial(current=small("{}"), candidate=small(BOB_TEXT, base="new"), share=1.0, name=method)
    assert one.with_structured_output(Person, method=method).invoke("?") == BOB


def test_a_cut_object_is_handed_over_and_two_cut_ones_are_told():
    cut = small(BOB_TEXT, probability=0.99)
    cut.max_tokens = 5
    whole = HandOver(primary=cut, fallback=small(BOB_TEXT)).with_structured_output(Person, include_raw=True)
    told = whole.invoke("?")
    assert (told["parsed"], told["raw"].response_metadata["hand_over_reason"]) == (BOB, "invalid")
    also_cut = small(BOB_TEXT, base="new")
    also_cut.max_tokens = 5
    for pair in (HandOver(primary=cut, fallback=also_cut), Trial(current=cut, candidate=also_cut, name="cut")):
        with pytest.raises(OutputParserException, match="was cut at its limit"):
            pair.with_structured_output(Person).invoke("?")


def test_an_openai_fallback_is_asked_in_its_own_way(server):
    server.text = BOB_TEXT
    pair = HandOver(primary=small('{"name": "X", "age": 1}'), fallback=server.model())
    assert pair.with_structured_output(Person).invoke("?") == BOB
    bound = pair.with_structured_output(Person, stop=["#"], max_tokens=50, top_k=5)
    assert asyncio.run(bound.ainvoke("?")) == BOB
    assert (server.asked[1]["stop"], server.asked[1]["max_completion_tokens"]) == (["#"], 50)
    wanted = server.asked[0]["response_format"]
    assert wanted["type"] == "json_schema"
    assert set(wanted["json_schema"]["schema"]["properties"]) == {"name", "age"}


def test_a_fallback_that_answers_with_a_tool_call_gives_json(model):
    call = {"name": "Person", "args": BOB.model_dump(), "id": "1"}
    pair = HandOver(primary=model(said("", 0.1)), fallback=model(said("", calls=[call])))
    assert pair.with_structured_output(Person).invoke("?") == BOB
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}}
    assert json.loads(pair.invoke("?", response_format=form).text) == BOB.model_dump()
    streamed = "".join(chunk.text for chunk in pair.stream("?", response_format=form))
    assert json.loads(streamed) == BOB.model_dump()


def test_a_demanded_tool_call_is_an_object_too(model):
    call = {"name": "Person", "args": BOB.model_dump(), "id": "1"}
    pair = HandOver(primary=model(said("", 0.9, calls=[call])), fallback=model("x"))
    assert pair.with_structured_output(Person, method="function_calling").invoke("?") == BOB


def test_who_cannot_is_told_before_it_matters(model):
    class Plain(ScriptedChatModel):
        bind_tools = BaseChatModel.bind_tools

    with pytest.raises(NotImplementedError):
        HandOver(primary=small("x"), fallback=Plain(replies=["x"])).with_structured_output(Person)
