"""LangSmith: runs as its API, its SDK (`client.list_runs`) and its exports write them, one object for each run.

With the SDK: `for run in Client().list_runs(project_name="p"): print(run.model_dump_json(), file=out)`.

Field names follow LangSmith's "run data format"; a call's inputs and outputs may be those of LangChain's tracer, of
`wrap_openai` (chat and responses), of `wrap_anthropic`, or of a `@traceable` function of the run type `llm`.
"""

from __future__ import annotations

from collections.abc import Mapping
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

_PARSED = ("inputs", "outputs", "extra", "feedback_stats", "metadata")
"""Fields that exports to tables write as JSON text."""


def group(run: Mapping[str, Any]) -> str:
    """Return the trace a run belongs to; empty for what is no run."""
    if "run_type" not in run:
        return ""
    return str(run.get("trace_id") or str(run.get("dotted_order") or "").split(".")[0][-36:] or run.get("id") or "")


def build(trace: str, runs: list[dict[str, Any]], settings: ImportSettings) -> Episode | None:
    """Make an episode of one trace's runs; None when no model was called in it."""
    once = {str(run.get("id")): run for run in runs}  # files of an export may overlap
    runs = [{**run, **{name: parsed(run[name]) for name in _PARSED if name in run}} for run in once.values()]
    runs.sort(key=lambda run: (str(run.get("start_time") or ""), str(run.get("dotted_order") or "")))
    ids = {run.get("id") for run in runs}
    root = next((run for run in runs if run.get("parent_run_id") not in ids), runs[0])
    calls = [run for run in runs if run["run_type"] == "llm"]
    around = {run.get("parent_run_id") for run in calls}  # a call in a call: the inner one is the model's own
    steps = [step for run in calls if run.get("id") not in around and (step := _step(run, settings))]
    if not steps:
        return None
    steps = [replace(step, index=index) for index, step in enumerate(steps)]
    prompt = find_task(root.get("inputs"), steps)
    example = str(root.get("reference_example_id") or "")
    return Episode(
        id=short(trace, 36),
        env=settings.env or "langsmith",
        task=Task(id=example or task_id(prompt, trace), prompt=prompt, split=settings.split),
        run=settings.run,
        reward=pick_reward(_feedback(root), settings),
        stopped="error" if root.get("error") else "ended",
        attempts=max(step.attempt for step in steps),
        answer=steps[-1].completion,
        error=str(root.get("error") or "")[:2000],
        steps=steps,
        settings={"imported": "langsmith", "trace": trace, "project": str(root.get("session_name") or "")},
    )


def _step(run: Mapping[str, Any], settings: ImportSettings) -> Step | None:
    inputs, outputs = run.get("inputs") or {}, run.get("outputs")
    reply, prompt = read_reply(outputs) or bare_reply(outputs), _prompt(inputs)
    if reply is None or not prompt:
        return None
    extra = run.get("extra") or {}
    about = {**(run.get("metadata") or {}), **(extra.get("metadata") or {})}
    asked = extra.get("invocation_params") or {}
    read, written = _tokens(run, outputs)
    return Step(
        key=short(str(run.get("id") or "").replace("-", ""), 32),
        index=0,
        attempt=number(about.get("cmat_attempt")) or 1,
        node=seat(about, settings),
        messages=without_reasoning(prompt),
        completion=reply["content"],
        tool_calls=reply.get("tool_calls", []),
        tools=read_tools(asked.get("tools") or asked.get("functions") or _of(inputs, "tools")),
        input_tokens=read,
        output_tokens=written,
        seconds=seconds_between(run.get("start_time"), run.get("end_time")),
        model=str(about.get("ls_model_name") or asked.get("model") or _of(inputs, "model") or ""),
        told={"reasoning": reply["reasoning"]} if "reasoning" in reply else {},
    )


def _prompt(inputs: Any) -> list[Message]:
    if not isinstance(inputs, Mapping):
        return read_messages(inputs)
    system = inputs.get("system") or inputs.get("instructions")
    first: list[Message] = read_messages({"role": "system", "content": system}) if system else []
    for name in ("messages", "input", "prompts", "prompt"):
        if inputs.get(name):
            return first + read_messages(inputs[name][:1] if name == "prompts" else inputs[name])
    return []


def _tokens(run: Mapping[str, Any], outputs: Any) -> tuple[int, int]:
    told = (run.get("extra") or {}).get("metadata")
    usage: Any = _of(outputs, "usage_metadata") or _of(outputs, "usage") or _of(told, "usage_metadata")
    usage = usage or _of(_of(outputs, "llm_output"), "token_usage") or _of(_message(outputs), "usage_metadata") or {}
    read = run.get("prompt_tokens") or usage.get("input_tokens") or usage.get("prompt_tokens")
    written = run.get("completion_tokens") or usage.get("output_tokens") or usage.get("completion_tokens")
    return number(read), number(written)


def _message(outputs: Any) -> Any:
    """Return the fields of the message that LangChain's tracer wrote as the answer."""
    made = _of(outputs, "generations")
    while isinstance(made, list) and made:
        made = made[0]
    return _of(_of(made, "message"), "kwargs")


def _feedback(root: Mapping[str, Any]) -> dict[str, float]:
    stats = root.get("feedback_stats") or {}
    return {
        str(key): float(told["avg"])
        for key, told in stats.items()
        if isinstance(told, Mapping) and isinstance(told.get("avg"), int | float)
    }


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
