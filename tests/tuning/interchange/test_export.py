"""Datasets in other trainers' forms: what is learned there is what would be learned here."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import TypeAdapter

from cmat_graph.errors import ConfigurationError, DatasetError
from cmat_graph.traces.imports import import_traces
from cmat_graph.tuning.dataset import FILES, MANIFEST, Dataset, Example, Judged, Origin, Pair, Row, to_row
from cmat_graph.tuning.interchange import FORMS, export

TOOLS = [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}]
ORIGIN = Origin(task_id="task-1", env="database")
FAILED = "Action: SELECT nothing"
TURNS = Example(
    messages=[
        {"role": "system", "content": "You use a database."},
        {"role": "user", "content": "How many goals?"},
        {"role": "assistant", "content": FAILED, "weight": 0.0},
        {"role": "user", "content": "no such column"},
        {"role": "assistant", "content": "Action: SELECT goals", "weight": 1.0},
        {"role": "user", "content": "9"},
        {"role": "assistant", "content": "Final: 9", "weight": 0.5},
        {"role": "user", "content": "thanks"},
    ],
    origin=ORIGIN,
)
CALLS = Example(
    messages=[
        {"role": "user", "content": "What is in the garden?"},
        {"role": "assistant", "content": "I look.", "weight": 1.0, "tool_calls": [
            {"name": "look", "args": {"at": "garden", "depth": 2}, "id": "a"},
            {"name": "look", "args": {"deep": {"er": [1, 2]}}, "id": ""},
        ]},
        {"role": "tool", "content": "a tree", "tool_call_id": "a"},
        {"role": "tool", "content": "a pond", "tool_call_id": ""},
        {"role": "assistant", "content": "A tree and a pond.", "weight": 1.0},
    ],
    tools=TOOLS,
    kind="tool_turn",
    origin=ORIGIN,
)  # fmt: skip
THOUGHTS = Example(
    messages=[
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "One.", "weight": 1.0, "reasoning": "Counting begins."},
        {"role": "user", "content": "Then?"},
        {"role": "assistant", "content": "Two.", "weight": 1.0, "reasoning": "Counting goes on."},
    ],
    origin=ORIGIN,
)
PROMPT: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
PAIR = Pair(
    prompt=PROMPT,
    chosen={"role": "assistant", "content": "Hello!"},
    rejected={"role": "assistant", "content": "Go away."},
    contrast="rejected",
    origin=ORIGIN,
)
JUDGED = Judged(prompt=PROMPT, completion={"role": "assistant", "content": "Go away."}, good=False, origin=ORIGIN)


def make(folder: Path, *rows: Row, part: str = "train") -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for row in rows:
        name = f"{FILES[type(row)]}.{part}"
        counts[name] = counts.get(name, 0) + 1
        with (folder / f"{name}.jsonl").open("a") as out:
            out.write(json.dumps(to_row(row)) + "\n")
    (folder / MANIFEST).write_text(json.dumps({"sha256": "0" * 64, "rows": counts}))
    return Dataset(folder)


def rows_of(files: list[Path], kind: str = "sft") -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in files
        if file.suffix == ".jsonl" and kind in file.name
        for line in file.read_text().splitlines()
    ]


def learned(form: str, row: dict[str, Any]) -> list[str]:
    """Return what a trainer of this form puts loss on, by the trainer's own rules."""
    if form == "openai":
        return [m["content"] for m in row["messages"] if m["role"] == "assistant" and m["weight"] == 1]
    if form == "swift":
        return [m["content"] for m in row["messages"] if m.get("loss")]
    if form == "rllm":
        return [m["content"][-1]["text"] for m in row["messages"] if m["trainable"]]
    if form == "agentinstruct":
        return [turn["value"] for turn in row["conversations"] if turn["loss"]]
    if form == "llamafactory":  # with `mask_history`, the last turn alone
        return [row["conversations"][-1]["value"]]
    if form == "alpaca":
        return [row["output"]]
    return [message["content"] for message in row["completion"]]


@pytest.mark.parametrize("form", FORMS)
def test_a_failed_try_is_context_and_never_a_target(tmp_path, form):
    rows = rows_of(export(make(tmp_path / "data", TURNS), tmp_path / "out", form))
    assert [text for row in rows for text in learned(form, row)] == ["Action: SELECT goals", "Final: 9"]
    assert FAILED in json.dumps(rows)
    assert "thanks" not in json.dumps(rows)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("alpaca", "agentinstruct")])
def test_what_a_call_says_is_kept(tmp_path, form):
    (*_, last) = rows_of(export(make(tmp_path / "data", CALLS), tmp_path / "out", form))
    told = json.dumps(last).replace("\\", "")
    for text in ("I look.", '"at": "garden"', '"er": [1, 2]', "a tree", "a pond", "A tree and a pond.", "Looks."):
        assert text in told


@pytest.mark.parametrize("form", ["alpaca", "agentinstruct"])
def test_a_form_without_tools_says_so(tmp_path, form):
    with pytest.raises(DatasetError, match=r"1 rows left out: tool"):
        export(make(tmp_path / "data", CALLS), tmp_path / "out", form)


def test_openai_rows_are_what_its_own_types_describe(tmp_path):
    files = export(make(tmp_path / "data", TURNS, CALLS, PAIR), tmp_path / "out", "openai")
    chat, tools = TypeAdapter(list[ChatCompletionMessageParam]), TypeAdapter(list[ChatCompletionToolParam])
    for row in rows_of(files):
        weights = [message.pop("weight") for message in row["messages"] if message["role"] == "assistant"]
        assert set(weights) <= {0, 1}
        assert weights[-1] == 1
        chat.validate_python(row["messages"], strict=True)
        tools.validate_python(row.get("tools", []), strict=True)
        asked = [call["id"] for message in row["messages"] for call in message.get("tool_calls") or ()]
        assert asked == [message["tool_call_id"] for message in row["messages"] if message["role"] == "tool"]
    (preference,) = rows_of(files, "pairs")
    assert preference == {
        "input": {"messages": PROMPT},
        "preferred_output": [{"role": "assistant", "content": "Hello!"}],
        "non_preferred_output": [{"role": "assistant", "content": "Go away."}],
    }


def test_a_result_of_no_call_is_not_called_a_tool_for_openai(tmp_path):
    messages: Any = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": "{broken", "garbled": "look"},
        {"role": "tool", "content": "no valid JSON", "tool_call_id": "x"},
        {"role": "assistant", "content": "Sorry.", "weight": 1.0},
    ]
    example = Example(messages=messages, origin=ORIGIN)
    (row,) = rows_of(export(make(tmp_path / "data", example), tmp_path / "out", "openai"))
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "user", "assistant"]


def test_swift_is_told_the_weight_of_each_turn(tmp_path):
    (row,) = rows_of(export(make(tmp_path / "data", TURNS), tmp_path / "out", "swift"))
    flags = [(m.get("loss"), m.get("loss_scale")) for m in row["messages"] if m["role"] == "assistant"]
    assert flags == [(False, None), (True, None), (True, 0.5)]


def test_in_swift_the_calls_of_a_turn_bear_its_flag(tmp_path):
    (row,) = rows_of(export(make(tmp_path / "data", CALLS), tmp_path / "out", "swift"))
    told = [(message["role"], message.get("loss")) for message in row["messages"]]
    assert told == [
        ("user", None), ("assistant", True), ("tool_call", True), ("tool_call", True),
        ("tool_response", None), ("tool_response", None), ("assistant", True),
    ]  # fmt: skip


@pytest.mark.parametrize(("form", "rows"), [("swift", 2), ("rllm", 2), ("trl", 2), ("llamafactory", 2), ("openai", 1)])
def test_a_thought_is_learned_where_it_is_last(tmp_path, form, rows):
    written = rows_of(export(make(tmp_path / "data", THOUGHTS), tmp_path / "out", form))
    assert len(written) == rows
    if form != "openai":
        assert "Counting begins." in json.dumps(written[0])
        assert "Counting begins." not in json.dumps(written[1])
        assert "Counting goes on." in json.dumps(written[1])


def test_rllm_finds_a_flag_on_every_message(tmp_path):
    for row in rows_of(export(make(tmp_path / "data", TURNS, CALLS, THOUGHTS), tmp_path / "out", "rllm")):
        assert all(isinstance(message["trainable"], bool) for message in row["messages"])
        assert all(part["type"] in ("text", "thinking") for m in row["messages"] for part in m["content"])
        assert row["task_id"] == "task-1"


def test_llamafactory_finds_its_datasets_and_a_mask(tmp_path):
    dataset = make(tmp_path / "data", TURNS, CALLS, PAIR, JUDGED)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset_info.json").write_text('{"alpaca_en_demo": {"file_name": "alpaca_en_demo.json"}}')
    files = export(dataset, tmp_path / "out", "llamafactory", name="mine")
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert set(info) == {"alpaca_en_demo", "mine_sft_train", "mine_pairs_train", "mine_judged_train"}
    for name, entry in info.items():
        if name != "alpaca_en_demo":
            rows = rows_of(files, name)
            assert rows
            assert all(column in row for row in rows for column in entry["columns"].values())
    assert info["mine_pairs_train"]["ranking"] is True
    config = (tmp_path / "out" / "mine_sft.yaml").read_text()
    assert "mask_history: true\n" in config
    assert "dataset: mine_sft_train\n" in config
    assert {file.name for file in files} >= {"dataset_info.json", "mine_sft.yaml", "mine_pairs.yaml"}


def test_llamafactory_turns_alternate(tmp_path):
    rows = rows_of(export(make(tmp_path / "data", TURNS, CALLS), tmp_path / "out", "llamafactory"))
    for row in rows:
        for at, turn in enumerate(row["conversations"]):
            assert turn["from"] in (("human", "observation"), ("gpt", "function_call"))[at % 2]
        assert len(row["conversations"]) % 2 == 0
    assert rows[-1]["conversations"][2] == {"from": "observation", "value": "a tree\na pond"}


def test_llamafactory_finds_the_calls_of_a_turn(tmp_path):
    row = rows_of(export(make(tmp_path / "data", CALLS), tmp_path / "out", "llamafactory"))[0]
    said, _, made = row["conversations"][-1]["value"].partition("<tool_call>")
    calls = json.loads(made.removesuffix("</tool_call>"))
    assert row["conversations"][-1]["from"] == "function_call"
    assert said == "I look.\n"
    assert calls == [{"name": call["name"], "arguments": call["args"]} for call in CALLS.messages[1]["tool_calls"]]
    assert json.loads(row["tools"])[0]["function"]["parameters"] == {"type": "object", "properties": {}}


def test_alpaca_keeps_what_went_before_as_history(tmp_path):
    (_, row) = rows_of(export(make(tmp_path / "data", TURNS), tmp_path / "out", "alpaca"))
    assert row["system"] == "You use a database."
    assert row["history"] == [["How many goals?", FAILED], ["no such column", "Action: SELECT goals"]]
    assert (row["instruction"], row["output"]) == ("9", "Final: 9")


def test_what_agentinstruct_holds_comes_back_as_it_was(tmp_path, traces):
    export(make(tmp_path / "data", TURNS), tmp_path / "out", "agentinstruct")
    import_traces(tmp_path / "out", traces, form="agentinstruct")
    (episode,) = traces.episodes()
    at = TURNS.targets
    assert [step.completion for step in episode.steps] == [TURNS.messages[k]["content"] for k in at]
    for step, k in zip(episode.steps, at, strict=True):
        assert step.messages == [{"role": m["role"], "content": m["content"]} for m in TURNS.messages[:k]]


def test_trl_columns_survive_a_table(tmp_path):
    datasets = pytest.importorskip("datasets")
    export(make(tmp_path / "data", CALLS, TURNS, PAIR, JUDGED), tmp_path / "out", "trl")
    files = {"train": str(tmp_path / "out" / "sft.train.jsonl")}
    table = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    (asked, answer, *_) = table
    assert [call["function"]["arguments"] for call in asked["completion"][0]["tool_calls"]] == [
        {"at": "garden", "depth": 2},
        {"deep": {"er": [1, 2]}},
    ]
    assert json.loads(asked["tools"]) == TOOLS
    assert answer["prompt"][-1]["content"] == "a pond"
    assert {"prompt", "chosen", "rejected"} == rows_of([tmp_path / "out" / "pairs.train.jsonl"], "pairs")[0].keys()
    assert rows_of([tmp_path / "out" / "judged.train.jsonl"], "judged")[0]["label"] is False


def test_what_a_form_cannot_hold_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        export(make(tmp_path / "data", TURNS, CALLS, PAIR), tmp_path / "out", "agentinstruct")
    assert "1 rows left out: tool calls, which the form has no turn for" in caplog.text
    assert "1 rows left out: agentinstruct has no form for pairs" in caplog.text
    assert "1 weights became 1: agentinstruct knows only 0 and 1" in caplog.text


def test_swift_keeps_all_there_is(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        files = export(make(tmp_path / "data", TURNS, PAIR, JUDGED), tmp_path / "out", "swift")
    assert not caplog.text
    (pair,) = rows_of(files, "pairs")
    assert pair["messages"][:-1] == pair["rejected_messages"][:-1] == PROMPT
    assert [row["label"] for row in rows_of(files, "judged")] == [False]


def test_validation_rows_stay_apart(tmp_path):
    make(tmp_path / "data", TURNS)
    dataset = make(tmp_path / "data", CALLS, part="validation")
    files = export(dataset, tmp_path / "out", "openai")
    assert [file.name for file in files] == ["sft.train.jsonl", "sft.validation.jsonl"]


def test_an_export_replaces_what_it_wrote_before(tmp_path):
    export(make(tmp_path / "a", TURNS, PAIR), tmp_path / "out", "trl")
    export(make(tmp_path / "b", THOUGHTS), tmp_path / "out", "trl")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["sft.train.jsonl"]


def test_an_empty_dataset_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="it is empty"):
        export(make(tmp_path / "data"), tmp_path / "out", "trl")


def test_a_dataset_is_not_overwritten_by_its_export(tmp_path):
    dataset = make(tmp_path / "data", TURNS)
    with pytest.raises(ConfigurationError, match="holds a dataset"):
        export(dataset, tmp_path / "data", "trl")
    assert list(dataset.examples()) == [TURNS]


def test_an_unknown_form_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="known: llamafactory"):
        export(make(tmp_path / "data", TURNS), tmp_path / "out", "axolotl")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "a\nb: c", ".hidden"])
def test_a_name_never_leaves_its_folder(tmp_path, name):
    dataset = make(tmp_path / "d", TURNS)
    with pytest.raises(ConfigurationError, match="use letters, digits"):
        export(dataset, tmp_path / "out", "llamafactory", name=name)
    assert not (tmp_path / "out").exists()
