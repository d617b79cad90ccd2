"""LLaMA-Factory: rows in its sharegpt or alpaca form, their entries in `dataset_info.json`, and a configuration.

Released versions (0.9.5) put loss on every reply of a conversation, those in alpaca's `history` too, unless
`mask_history: true` is set: then on the last one only. So a row is written for each target, which is its last message,
and the configuration beside the rows sets `mask_history`; without it earlier tries would be learned as well.

Its sharegpt form wants turns of user (or observation) and assistant in strict alternation: what the user and tools say
in a row is joined, and a conversation in which the assistant speaks twice in a row is left out. Calls are JSON in a
turn `function_call`; what was said before them, and a thought, stand in front of it as its templates read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmat_graph.errors import DatasetError
from cmat_graph.tuning.dataset import Dataset, Example, Judged, Pair
from cmat_graph.tuning.interchange.forms import Form, JsonRow, UnfitError, one_each
from cmat_graph.types import Message

INFO = "dataset_info.json"
_COLUMNS = {
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
    "alpaca": {"prompt": "instruction", "query": "input", "system": "system", "history": "history"},
}
_KINDS: dict[str, dict[str, dict[str, str]]] = {
    "sharegpt": {"sft": {}, "pairs": {"chosen": "chosen", "rejected": "rejected"}, "judged": {"kto_tag": "kto_tag"}},
    "alpaca": {
        "sft": {"response": "output"},
        "pairs": {"chosen": "chosen", "rejected": "rejected"},
        "judged": {"response": "output", "kto_tag": "kto_tag"},
    },
}
_STAGES = {"sft": "sft", "pairs": "dpo", "judged": "kto"}
_CONFIG = """\
# In this folder: llamafactory-cli train {file}
# `mask_history` puts the loss on the last turn of a row alone; without it failed tries would be learned.
model_name_or_path:  # the base
template:  # the base's template, as LLaMA-Factory names it
stage: {stage}
do_train: true
finetuning_type: lora
dataset_dir: .
{datasets}{mask}output_dir: {name}_{kind}
"""


def sharegpt_sft(example: Example) -> Iterator[JsonRow]:
    """Write a row for each target."""
    for row in one_each(example):
        system, turns = conversation(row.messages)
        yield {"conversations": turns, "system": system, "tools": _tools(example.tools)}


def sharegpt_pairs(pair: Pair) -> Iterator[JsonRow]:
    """Write a preference."""
    (system, chosen), (_, rejected) = (
        conversation([*pair.prompt, pair.chosen]),
        conversation([*pair.prompt, pair.rejected]),
    )
    told = {"conversations": chosen[:-1], "chosen": chosen[-1], "rejected": rejected[-1]}
    yield {**told, "system": system, "tools": _tools(pair.tools)}


def sharegpt_judged(row: Judged) -> Iterator[JsonRow]:
    """Write a reply with its label."""
    system, turns = conversation([*row.prompt, row.completion])
    yield {"conversations": turns, "kto_tag": row.good, "system": system, "tools": _tools(row.tools)}


def alpaca_sft(example: Example) -> Iterator[JsonRow]:
    """Write a row for each target, with what went before as its history."""
    for row in one_each(example):
        asked, answer = _alpaca(row.messages, row.tools)
        yield {**asked, "output": answer}


def alpaca_pairs(pair: Pair) -> Iterator[JsonRow]:
    """Write a preference."""
    asked, chosen = _alpaca([*pair.prompt, pair.chosen], pair.tools)
    _, rejected = _alpaca([*pair.prompt, pair.rejected], pair.tools)
    yield {**asked, "chosen": chosen, "rejected": rejected}


def alpaca_judged(row: Judged) -> Iterator[JsonRow]:
    """Write a reply with its label."""
    asked, answer = _alpaca([*row.prompt, row.completion], row.tools)
    yield {**asked, "output": answer, "kto_tag": row.good}


def conversation(messages: Sequence[Message]) -> tuple[str, list[dict[str, str]]]:
    """Return the system prompt, and turns in alternation.

    Raises:
        UnfitError: The assistant speaks first, or twice in a row.

    """
    system, turns = "", list[dict[str, str]]()
    for message in messages:
        role = message["role"]
        if role == "system" and not turns and not system:
            system = message["content"]
        elif role == "assistant":
            if len(turns) % 2 == 0:
                raise UnfitError("the assistant speaks first or twice in a row, which the form cannot hold")
            turns.append(_reply(message))
        elif len(turns) % 2:
            turns[-1]["value"] += "\n" + message["content"]
        else:
            turns.append({"from": "observation" if role == "tool" else "human", "value": message["content"]})
    return system, turns


def _reply(message: Message) -> dict[str, str]:
    thought = message.get("reasoning")
    front = f"<think>\n{thought}\n</think>\n\n" if thought else ""
    calls = message.get("tool_calls")
    if not calls:
        return {"from": "gpt", "value": front + message["content"]}
    made = json.dumps([{"name": call["name"], "arguments": call["args"]} for call in calls], ensure_ascii=False)
    if said := message["content"]:
        return {"from": "function_call", "value": f"{front}{said}\n<tool_call>{made}</tool_call>"}
    return {"from": "function_call", "value": front + made}


def _alpaca(messages: Sequence[Message], tools: Sequence[Any]) -> tuple[JsonRow, str]:
    system, turns = conversation(messages)
    if tools or any(turn["from"] in ("function_call", "observation") for turn in turns):
        raise UnfitError("tools, which alpaca has no column for: --format llamafactory")
    texts = [turn["value"] for turn in turns]
    history = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    return {"instruction": texts[-2], "input": "", "system": system, "history": history}, texts[-1]


def _tools(tools: Sequence[Mapping[str, Any]]) -> str:
    """Write tools as JSON text; its default form reads each one's `properties`, so that none may lack them."""
    whole = []
    for tool in tools:
        function = dict(tool.get("function") or tool)
        function["parameters"] = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
        whole.append({"type": "function", "function": function})
    return json.dumps(whole, ensure_ascii=False) if whole else ""


def _describe(formatting: str) -> Any:
    def describe(folder: Path, name: str, dataset: Dataset, files: Mapping[str, Path]) -> list[Path]:
        info, written = folder / INFO, []
        try:  # a folder that is LLaMA-Factory's own `data` keeps its other datasets
            known = json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {}
        except ValueError as exc:
            raise DatasetError(f"{info} is no JSON: {exc}; mend it, or export into another folder") from exc
        for kind in dict.fromkeys(key.partition(".")[0] for key in files):
            parts = {part: files[f"{kind}.{part}"] for part in ("train", "validation") if f"{kind}.{part}" in files}
            for file in parts.values():
                entry = {"file_name": file.name, "columns": {**_COLUMNS[formatting], **_KINDS[formatting][kind]}}
                ranking = {"ranking": True} if kind == "pairs" else {}
                known[file.stem] = {"formatting": formatting, **ranking, **entry}
            config = folder / f"{name}_{kind}.yaml"
            named = {"train": "dataset", "validation": "eval_dataset"}
            datasets = "".join(f"{named[part]}: {file.stem}\n" for part, file in parts.items())
            mask = "mask_history: true\n" if kind == "sft" else ""
            told = {"file": config.name, "stage": _STAGES[kind], "name": name, "kind": kind}
            config.write_text(_CONFIG.format(datasets=datasets, mask=mask, **told), encoding="utf-8")
            written.append(config)
        info.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return [info, *written]

    return describe


def _stem(name: str, kind: str, part: str) -> str:
    return f"{name}_{kind}_{part}"


SHAREGPT = Form(
    sft=sharegpt_sft, pairs=sharegpt_pairs, judged=sharegpt_judged, stem=_stem, describe=_describe("sharegpt")
)
ALPACA = Form(sft=alpaca_sft, pairs=alpaca_pairs, judged=alpaca_judged, stem=_stem, describe=_describe("alpaca"))
