"""LangSmith's exports, made by its own client from real runs of LangGraph agents."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_core.tracers.langchain import LangChainTracer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langsmith import Client
from langsmith.schemas import Run

from cmat_graph.errors import DatasetError
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.traces import SQLTraceStore, TraceHandler
from cmat_graph.traces.imports import ImportSettings, import_traces
from cmat_graph.traces.imports.langsmith import build
from cmat_graph.traces.imports.messages import read_messages, read_reply


class LangSmith:
    """Takes what LangSmith's client posts, and keeps it as the service would."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        kept = self.runs

        class Handler(BaseHTTPRequestHandler):
            def take(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["content-length"])))
                id_ = told.get("id") or self.path.rpartition("/")[2]
                kept.setdefault(id_, {"id": id_}).update({k: v for k, v in told.items() if v is not None})
                self.send_response(200)
                self.end_headers()

            do_POST = do_PATCH = take

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.server.server_port}"
        self.tracer = LangChainTracer(client=Client(api_url=url, api_key="none", auto_batch_tracing=False, info={}))

    def export(self, file: Path) -> Path:
        self.tracer.wait_for_futures()
        file.write_text("".join(json.dumps(run) + "\n" for run in self.runs.values()))
        return file


@pytest.fixture
def langsmith() -> Iterator[LangSmith]:
    service = LangSmith()
    yield service
    service.server.shutdown()
    service.server.server_close()


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    if a < 0:
        raise ValueError("no negative numbers")
    return str(a + b)


def calls(**args: int) -> AIMessage:
    return AIMessage(
        "Let me add.",
        tool_calls=[{"name": "add", "args": args, "id": f"call-{args['a']}"}],
        additional_kwargs={"reasoning_content": "Adding is asked."},
        usage_metadata={"input_tokens": 20, "output_tokens": 7, "total_tokens": 27},
    )


def ask(question: str, replies: list[Any], *handlers: Any) -> None:
    agent = create_agent(ScriptedChatModel(replies=replies), [add], system_prompt="Be brief.")
    agent.invoke({"messages": [("user", question)]}, {"callbacks": list(handlers)})


def test_an_export_gives_the_episode_that_a_trace_handler_would_have_recorded(langsmith, traces, tmp_path):
    ours = SQLTraceStore(f"sqlite:///{tmp_path / 'ours.db'}")
    ask("What is 2 + 3?", [calls(a=2, b=3), "Five."], langsmith.tracer, TraceHandler(ours))

    done = import_traces(langsmith.export(tmp_path / "runs.jsonl"), traces, form="langsmith")

    assert (done.episodes, done.steps) == (1, 2)
    (recorded,), (imported,) = ours.episodes(), traces.episodes()
    assert imported.task.prompt == recorded.task.prompt == "What is 2 + 3?"
    assert imported.answer == recorded.answer == "Five."
    assert imported.stopped == recorded.stopped == "ended"
    for theirs, own in zip(imported.steps, recorded.steps, strict=True):
        for name in ("index", "attempt", "node", "messages", "completion", "tool_calls", "tools", "model", "told"):
            assert getattr(theirs, name) == getattr(own, name), name
        assert (theirs.input_tokens, theirs.output_tokens) == (own.input_tokens, own.output_tokens)
    assert imported.steps[0].told == {"reasoning": "Adding is asked."}


def test_what_a_failing_tool_said_is_marked_as_an_error(langsmith, traces, tmp_path):
    replies = [calls(a=-1, b=1), "It cannot be done."]
    model = ScriptedChatModel(replies=replies)
    ours = SQLTraceStore(f"sqlite:///{tmp_path / 'ours.db'}")
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([add], handle_tool_errors=True))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    agent = graph.compile()
    agent.invoke({"messages": [("user", "Add -1 and 1.")]}, {"callbacks": [langsmith.tracer, TraceHandler(ours)]})

    import_traces(langsmith.export(tmp_path / "runs.jsonl"), traces, form="langsmith")

    for store in (traces, ours):
        (episode,) = store.episodes()
        result = episode.steps[1].messages[-1]
        assert (result["role"], result["error"]) == ("tool", True)


def test_a_run_that_broke_is_an_episode_that_broke(langsmith, traces, tmp_path):
    with pytest.raises(ValueError, match="no negative"):
        ask("Add -1 and 1.", [calls(a=-1, b=1)], langsmith.tracer)

    import_traces(langsmith.export(tmp_path / "runs.jsonl"), traces, form="langsmith")

    (episode,) = traces.episodes()
    assert episode.stopped == "error"
    assert "no negative numbers" in episode.error


def test_runs_may_come_in_any_order_and_only_once(langsmith, traces, tmp_path):
    ask("What is 1 + 1?", [calls(a=1, b=1), "Two."], langsmith.tracer)
    ask("What is 4 + 4?", [calls(a=4, b=4), "Eight."], langsmith.tracer)
    file = langsmith.export(tmp_path / "runs.jsonl")
    file.write_text("\n".join(reversed(file.read_text().splitlines())))

    import_traces(file, traces, form="langsmith")
    again = import_traces(file, traces, form="langsmith")

    assert again.left_out == {"traces that were imported before": 2}
    told = {episode.task.prompt: [step.completion for step in episode.steps] for episode in traces.episodes()}
    assert told == {"What is 1 + 1?": ["Let me add.", "Two."], "What is 4 + 4?": ["Let me add.", "Eight."]}


def openai_run(**more: Any) -> dict[str, Any]:
    """A run as `wrap_openai` writes it: one call, which is its own trace."""
    return {
        "id": "0b0e8a6e-6a0c-4d5e-9d4e-3f6f6a1d2c3b",
        "trace_id": "0b0e8a6e-6a0c-4d5e-9d4e-3f6f6a1d2c3b",
        "run_type": "llm",
        "name": "ChatOpenAI",
        "start_time": "2026-01-02T03:04:05.000000",
        "end_time": "2026-01-02T03:04:07.500000",
        "inputs": {
            "model": "gpt-5-mini",
            "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
            "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}],
        },
        "outputs": {"choices": [{"message": {"role": "assistant", "content": "Four."}}], "usage_metadata": {}},
        "prompt_tokens": 11,
        "completion_tokens": 2,
        **more,
    }


def imported(traces: SQLTraceStore, file: Path, *runs: dict[str, Any], **told: Any) -> Any:
    file.write_text("".join(json.dumps(run) + "\n" for run in runs))
    import_traces(file, traces, form="langsmith", settings=ImportSettings(**told))
    (episode,) = traces.episodes()
    return episode


def test_a_call_of_a_wrapped_client_is_an_episode_of_its_own(traces, tmp_path):
    episode = imported(traces, tmp_path / "runs.jsonl", openai_run())
    (step,) = episode.steps
    assert step.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    assert (step.completion, step.model, step.seconds) == ("Four.", "gpt-5-mini", 2.5)
    assert (step.input_tokens, step.output_tokens) == (11, 2)
    assert step.tools[0]["function"]["name"] == "add"


def test_feedback_is_the_reward(traces, tmp_path):
    run = openai_run(feedback_stats={"correct": {"n": 1, "avg": 1.0}, "stars": {"n": 2, "avg": 4.0}})
    episode = imported(traces, tmp_path / "runs.jsonl", run, reward_key="stars", reward_scale=5)
    assert episode.reward == 0.8


def test_a_score_beyond_its_scale_is_refused(traces, tmp_path):
    run = openai_run(feedback_stats={"stars": {"n": 2, "avg": 4.0}})
    with pytest.raises(DatasetError, match="--reward-scale"):
        imported(traces, tmp_path / "runs.jsonl", run)


def test_several_scores_and_no_name_leave_the_reward_open(traces, tmp_path):
    run = openai_run(feedback_stats={"a": {"avg": 1.0}, "b": {"avg": 0.0}})
    assert imported(traces, tmp_path / "runs.jsonl", run).reward is None


def test_fields_written_as_json_text_are_read(traces, tmp_path):
    run = openai_run()
    flat = {**run, "inputs": json.dumps(run["inputs"]), "outputs": json.dumps(run["outputs"]), "extra": "{}"}
    assert imported(traces, tmp_path / "runs.jsonl", flat).answer == "Four."


def test_parquet_is_read_as_json_lines_are(traces, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    run = openai_run()
    flat = {**run, "inputs": json.dumps(run["inputs"]), "outputs": json.dumps(run["outputs"])}
    parquet.write_table(arrow.Table.from_pylist([flat]), tmp_path / "runs.parquet")
    import_traces(tmp_path / "runs.parquet", traces, form="langsmith")
    assert [episode.answer for episode in traces.episodes()] == ["Four."]


def test_an_answer_of_the_responses_api_is_one_message():
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "name": "look", "arguments": '{"at": "sky"}', "call_id": "c1"},
    ]
    said = {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"name": "look", "args": {"at": "sky"}, "id": "c1"}],
    }
    assert read_reply({"output": output}) == said
    answer = {"type": "function_call_output", "call_id": "c1", "output": "blue"}
    assert read_messages([*output[1:], answer])[-1] == {"role": "tool", "content": "blue", "tool_call_id": "c1"}


def test_anthropic_blocks_are_read():
    asked = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "sky"}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "blue", "is_error": True}],
        },
    ]
    assert read_messages(asked) == [
        {"role": "assistant", "content": "", "tool_calls": [{"name": "look", "args": {"at": "sky"}, "id": "t1"}]},
        {"role": "tool", "content": "blue", "tool_call_id": "t1", "error": True},
    ]


def test_a_call_that_is_no_json_is_garbled():
    raw = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}],
    }
    assert read_messages(raw) == [{"role": "assistant", "content": "", "garbled": "f"}]


def test_runs_as_the_sdk_reads_them_back_are_imported(traces, tmp_path):
    run = openai_run(session_id=str(uuid.uuid4()), dotted_order="x", feedback_stats={"correct": {"n": 1, "avg": 1.0}})
    (tmp_path / "runs.jsonl").write_text(Run(**run).model_dump_json() + "\n")
    import_traces(tmp_path / "runs.jsonl", traces, form="langsmith")
    assert [(episode.answer, episode.reward) for episode in traces.episodes()] == [("Four.", 1.0)]


def test_a_run_that_two_files_hold_is_one_call(traces, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(openai_run()))
    assert import_traces(tmp_path, traces, form="langsmith").steps == 1


@pytest.mark.parametrize(
    ("outputs", "said"), [({"answer": "Four."}, "Four."), ({"city": "Rome"}, '{"city": "Rome"}'), ({"text": "4"}, "4")]
)
def test_what_a_function_of_ones_own_answers_is_read(traces, tmp_path, outputs, said):
    assert imported(traces, tmp_path / "runs.jsonl", openai_run(outputs=outputs)).answer == said


def test_of_a_call_within_a_call_the_inner_one_counts():
    inner = openai_run(id="in", parent_run_id="out", trace_id="t")
    outer = openai_run(id="out", trace_id="t")
    episode = build("t", [outer, inner], ImportSettings())
    assert episode is not None
    assert len(episode.steps) == 1


def test_a_broken_line_is_named(traces, tmp_path):
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps(openai_run()) + "\n{broken\n")
    with pytest.raises(DatasetError, match="line 2"):
        import_traces(file, traces, form="langsmith")


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"hello": "world"}', "no json at all"])
def test_what_is_no_export_is_refused(traces, tmp_path, text):
    file = tmp_path / "runs.json"
    file.write_text(text)
    with pytest.raises(DatasetError):
        import_traces(file, traces, form="langsmith")


def test_a_missing_file_is_named(traces, tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        import_traces(tmp_path / "nowhere.jsonl", traces, form="langsmith")
