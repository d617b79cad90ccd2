"""Langfuse's exports. The folder `langfuse` was made with its SDK 5.0.4 from a run of a LangGraph agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cmat_graph.errors import DatasetError
from cmat_graph.traces.imports import ImportSettings, import_traces

EXPORT = Path(__file__).with_name("langfuse")


def import_one(source: Path, traces: Any, **told: Any) -> Any:
    import_traces(source, traces, form="langfuse", settings=ImportSettings(**told))
    (episode,) = traces.episodes()
    return episode


def test_a_blob_storage_export_is_an_episode(traces):
    episode = import_one(EXPORT, traces)

    assert (episode.task.prompt, episode.answer, episode.reward) == ("What is 2+3?", "Five.", 1.0)
    first, second = episode.steps
    assert first.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2+3?"}]
    assert first.tool_calls == [{"name": "add", "args": {"a": 2, "b": 3}, "id": "c1"}]
    assert [tool["function"]["name"] for tool in first.tools] == ["add"]
    assert (first.node, first.model, first.input_tokens, first.output_tokens) == ("model", "scripted", 20, 7)
    assert second.messages[-1] == {"role": "tool", "content": "5", "tool_call_id": "c1"}
    assert second.completion == "Five."


def test_scores_of_single_calls_and_of_words_are_no_reward(traces):
    assert import_one(EXPORT, traces, reward_key="latency").reward is None


def test_without_its_scores_the_reward_is_open(traces):
    assert import_one(EXPORT / "observations_v2", traces).reward is None


GENERATION = {
    "id": "obs-1",
    "traceId": "trace-1",
    "name": "openai-chat",
    "type": "GENERATION",
    "model": "gpt-5-mini",
    "startTime": "2026-04-12T10:23:14.512Z",
    "endTime": "2026-04-12T10:23:16.112Z",
    "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
    "output": {"role": "assistant", "content": "Four."},
    "usage": {"input": 412, "output": 87, "total": 499, "unit": "TOKENS"},
    "level": "DEFAULT",
}


def test_an_export_of_the_generations_table_is_read(traces, tmp_path):
    (tmp_path / "generations.json").write_text(json.dumps([GENERATION], indent=2))
    episode = import_one(tmp_path / "generations.json", traces, env="shop", run="june", split="test")
    assert (episode.env, episode.run, episode.task.split, episode.reward) == ("shop", "june", "test", None)
    (step,) = episode.steps
    assert (step.completion, step.input_tokens, step.output_tokens, step.seconds) == ("Four.", 412, 87, 1.6)
    assert (step.model, step.node) == ("gpt-5-mini", "model")


def test_a_downloaded_trace_holds_all_of_it(traces, tmp_path):
    trace = {
        "id": "trace-1",
        "name": "sum",
        "input": "How much is two and two?",
        "observations": [GENERATION, {**GENERATION, "id": "obs-0", "type": "SPAN", "parentObservationId": None}],
        "scores": [{"id": "s", "traceId": "trace-1", "name": "stars", "value": 4, "dataType": "NUMERIC"}],
    }
    (tmp_path / "trace.json").write_text(json.dumps(trace, indent=2))
    episode = import_one(tmp_path / "trace.json", traces, reward_scale=5)
    assert (episode.task.prompt, episode.reward, len(episode.steps)) == ("How much is two and two?", 0.8, 1)


def test_tool_calls_beside_the_output_are_read(traces, tmp_path):
    call = json.dumps({"id": "c1", "name": "add", "arguments": '{"a": 2}', "type": "function"})
    row = {**GENERATION, "output": '{"role": "assistant", "content": null}', "tool_calls": [call]}
    row["tool_definitions"] = {"add": json.dumps({"description": "Adds.", "parameters": {"type": "object"}})}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (step,) = import_one(tmp_path / "rows.jsonl", traces).steps
    assert step.tool_calls == [{"name": "add", "args": {"a": 2}, "id": "c1"}]
    assert step.tools[0]["function"]["description"] == "Adds."


def test_an_answer_in_json_is_what_was_said(traces, tmp_path):
    row = {**GENERATION, "input": "Where? As JSON.", "output": '{"city": "Rome"}'}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    episode = import_one(tmp_path / "rows.jsonl", traces)
    assert (episode.task.prompt, episode.answer) == ("Where? As JSON.", '{"city": "Rome"}')


def test_observations_that_stand_in_both_kinds_of_export_count_once(traces, tmp_path):
    for kind in ("observations", "observations_v2"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "today.jsonl").write_text(json.dumps(GENERATION))
    assert len(import_one(tmp_path, traces).steps) == 1


def test_a_trace_that_broke_says_why(traces, tmp_path):
    broke = {**GENERATION, "level": "ERROR", "statusMessage": "rate limit"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(broke))
    episode = import_one(tmp_path / "rows.jsonl", traces)
    assert (episode.stopped, episode.error) == ("error", "rate limit")


def test_an_export_without_calls_of_a_model_is_refused(traces, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({**GENERATION, "type": "SPAN"}))
    with pytest.raises(DatasetError, match="without a model's answer: 1"):
        import_one(tmp_path / "rows.jsonl", traces)
