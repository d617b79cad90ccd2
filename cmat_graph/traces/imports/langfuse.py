"""Langfuse: observations, traces and scores, as its blob storage export, its tables' export and its API write them.

The blob storage writes `trace_id` where the API writes `traceId`, and inputs and outputs as JSON text. Observations may
come in one file and scores in another: name their folder. `trace-ID.json`, as downloaded from a trace, holds all three.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cmat_graph.traces.imports.messages import bare_reply, parsed, read_messages, read_reply, read_tools
from cmat_graph.traces.imports.settings import ImportSettings, pick_reward
from cmat_graph.traces.imports.steps import (
    find_task,
    number,
    seat,
    seconds_between,
    short,
    task_id,
    without_reasoning,
)
from cmat_graph.types import Episode, Message, Step, Task

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_KINDS = {"SPAN", "GENERATION", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL"}
_TEXTS = ("CATEGORICAL", "TEXT", "CORRECTION")
"""Scores whose number means nothing."""


def group(record: Mapping[str, Any]) -> str:
    """Return the trace that an observation, a score or a trace belongs to; empty for what is none of them."""
    inner = record.get("trace")
    if isinstance(inner, Mapping):
        return str(inner.get("id") or "")
    trace = record.get("trace_id") or record.get("traceId")
    if trace is None and record.get("type") not in _KINDS and "id" in record:
        return str(record["id"])
    return str(trace or "")


def build(trace: str, records: list[dict[str, Any]], settings: ImportSettings) -> Episode | None:
    """Make an episode of one trace's records; None when no model was called in it."""
    rows = [_snake(row) for record in records for row in _apart(record)]
    once = {str(row.get("id")): row for row in rows if row.get("type") in _KINDS}  # both kinds of export hold them
    seen = sorted(once.values(), key=lambda row: str(row.get("start_time") or ""))
    about = next((row for row in rows if row.get("id") == trace and row.get("type") not in _KINDS), {})
    first = next((row for row in seen if not row.get("parent_observation_id")), seen[0] if seen else {})
    root = {**first, **{name: value for name, value in about.items() if value not in (None, "")}}
    steps = [step for row in seen if row["type"] == "GENERATION" and (step := _step(row, settings))]
    if not steps:
        return None
    steps = [replace(step, index=index) for index, step in enumerate(steps)]
    prompt = find_task(parsed(root.get("input")), steps)
    failed = str(first.get("status_message") or "error") if first.get("level") == "ERROR" else ""
    return Episode(
        id=short(trace, 36),
        env=settings.env or "langfuse",
        task=Task(id=task_id(prompt, trace), prompt=prompt, split=settings.split),
        run=settings.run,
        reward=pick_reward(_scores(rows), settings),
        stopped="error" if failed else "ended",
        attempts=max(step.attempt for step in steps),
        answer=steps[-1].completion,
        error=failed[:2000],
        steps=steps,
        settings={"imported": "langfuse", "trace": trace, "project": str(root.get("project_id") or "")},
    )


def _apart(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Take a trace with its observations and scores apart."""
    inner = record.get("trace")
    yield inner if isinstance(inner, Mapping) else record
    for held in (record, inner):
        for name in ("observations", "scores"):
            rows = held.get(name) if isinstance(held, Mapping) else None
            yield from (row for row in rows or () if isinstance(row, Mapping))


def _snake(row: Mapping[str, Any]) -> dict[str, Any]:
    return {_HUMP.sub("_", name).lower(): value for name, value in row.items()}


def _step(row: Mapping[str, Any], settings: ImportSettings) -> Step | None:
    asked, answered = parsed(row.get("input")), parsed(row.get("output"))
    prompt, tools = _prompt(asked)
    prompt = prompt or ([{"role": "user", "content": row["input"]}] if isinstance(row.get("input"), str) else [])
    reply = (read_reply(answered) or bare_reply(row["output"])) if answered not in (None, "", {}) else None
    if reply is None or not prompt:
        return None
    if not reply.get("tool_calls") and (calls := row.get("tool_calls")):
        made = read_reply({"content": reply["content"], "tool_calls": [_named_call(parsed(call)) for call in calls]})
        reply = made or reply
    metadata = parsed(row.get("metadata"))
    about = {name: _plain(value) for name, value in metadata.items()} if isinstance(metadata, Mapping) else {}
    usage = parsed(row.get("usage_details") or row.get("usage")) or {}
    defined = row.get("tool_definitions")
    if not tools and isinstance(defined, Mapping):
        tools = read_tools([{"name": n, **_as_dict(parsed(told))} for n, told in defined.items()])
    return Step(
        key=short(str(row.get("id") or "").replace("-", ""), 32),
        index=0,
        attempt=number(about.get("cmat_attempt")) or 1,
        node=seat(about, settings),
        messages=without_reasoning(prompt),
        completion=reply["content"],
        tool_calls=reply.get("tool_calls", []),
        tools=tools,
        input_tokens=number(usage.get("input")),
        output_tokens=number(usage.get("output")),
        seconds=seconds_between(row.get("start_time"), row.get("end_time")),
        model=str(row.get("provided_model_name") or row.get("model") or ""),
        told={"reasoning": reply["reasoning"]} if "reasoning" in reply else {},
    )


def _prompt(asked: Any) -> tuple[list[Message], list[dict[str, Any]]]:
    """Return the messages and the tools. Langfuse's LangChain handler writes tools behind the messages, as `tool`."""
    tools: list[Any] = []
    if isinstance(asked, Mapping) and ("messages" in asked or "input" in asked):
        tools = list(asked.get("tools") or ())
        system = asked.get("system") or asked.get("instructions")
        first = [{"role": "system", "content": system}] if system else []
        asked = asked.get("messages") or asked.get("input")
        asked = first + (asked if isinstance(asked, list) else [asked])
    if isinstance(asked, list):
        if asked and isinstance(asked[0], list) and asked[0] and not isinstance(asked[0][0], str):
            asked = asked[0]  # LangChain's batch of one
        tools += [m["content"] for m in asked if _defines_tool(m)]
        asked = [m for m in asked if not _defines_tool(m)]
    return read_messages(asked) if asked else [], read_tools(tools)


def _defines_tool(message: Any) -> bool:
    content = parsed(message.get("content")) if isinstance(message, Mapping) else None
    if not isinstance(content, Mapping) or message.get("role") != "tool" or message.get("tool_call_id"):
        return False
    return bool({"function", "parameters", "input_schema", "args_schema"} & content.keys())


def _scores(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        str(row["name"]): float(row["value"])
        for row in rows
        if row.get("name")
        and isinstance(row.get("value"), int | float)
        and row.get("type") not in _KINDS
        and row.get("data_type") not in _TEXTS
        and not row.get("observation_id")
    }


def _plain(value: Any) -> Any:
    """Return a value of the metadata, which the SDK writes as JSON: a text in quotes."""
    return value[1:-1] if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"' else value


def _named_call(call: Any) -> Any:
    return call if isinstance(call, Mapping) else {}


def _as_dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
