"""What a dataset's folder may hold, and what is said of one that is damaged or was changed."""

from __future__ import annotations

import json

import pytest

from cmat_graph.errors import ConfigurationError, DatasetError
from cmat_graph.tuning.dataset import Dataset, Example, hash_files
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.sources import HarvestSettings

ORIGIN = {"task_id": "t", "episodes": []}
ASKED = {"role": "user", "content": "add 1 and 2"}
SAID = {"role": "assistant", "content": "3", "weight": 1.0}


def write(folder, *lines, **manifest):
    folder.mkdir(exist_ok=True)
    (folder / "sft.train.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    told = {"sha256": "made", "rows": {"sft.train": len(lines)}, **manifest}
    (folder / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    return Dataset(folder)


def line(*messages, **more):
    return json.dumps({"messages": messages, "origin": ORIGIN, **more}).encode()


@pytest.mark.parametrize(
    "bad",
    [
        line(ASKED, {**SAID, "weight": float("nan")}),
        line(ASKED, {**SAID, "weight": float("inf")}),
        line(ASKED, {**SAID, "weight": -1}),
        line(ASKED, {**SAID, "weight": "2"}),
        line(ASKED, {**SAID, "weight": True}),
        line({**ASKED, "weight": 1.0}, SAID),
        line(ASKED, {"role": "assistant"}),
        line(ASKED, {"role": "assistant", "content": None}),
        line(ASKED, {"role": "assistant", "content": "\ud800"}),
        line(ASKED, {**SAID, "tool_calls": [{"name": "f", "args": "{}", "id": "1"}]}),
        line(ASKED, SAID, tools="none"),
        line(ASKED, SAID, __proto__={}),
        line("add", SAID),
        json.dumps({"messages": [ASKED, SAID]}).encode(),
        b"[]",
        b"null",
        b"{" + b"\xff" + b"}",
        b'{"a":' * 100_000,
        b"[" * 100_000,
    ],
)
def test_a_damaged_row_is_named_with_its_line_and_never_trained_on(tmp_path, bad):
    dataset = write(tmp_path / "d", line(ASKED, SAID), bad)
    with pytest.raises(DatasetError, match=r"sft\.train\.jsonl, line 2: .*mend it, or make the dataset anew"):
        list(dataset.examples())


@pytest.mark.parametrize("told", ["[]", "{}", '{"rows": []}', "[" * 100_000, '{"sha256": "x"}'])
def test_a_folder_with_another_manifest_is_no_dataset(tmp_path, told):
    (tmp_path / "manifest.json").write_text(told, encoding="utf-8")
    with pytest.raises(DatasetError, match="no dataset in"):
        Dataset(tmp_path)


def test_rows_that_were_changed_by_hand_have_another_hash(tmp_path):
    dataset = write(tmp_path / "d", line(ASKED, SAID))
    dataset = write(tmp_path / "d", line(ASKED, SAID), files=hash_files(tmp_path / "d"))
    assert dataset.hash == "made"
    (tmp_path / "d" / "sft.train.jsonl").write_bytes(line(ASKED, {**SAID, "content": "4"}) + b"\n")
    changed = dataset.hash
    assert changed != "made"
    assert [example.messages[1]["content"] for example in dataset.examples()] == ["4"]
    (tmp_path / "d" / "sft.train.jsonl").unlink()
    assert dataset.hash not in (changed, "made")


def test_what_was_made_without_hashes_of_files_keeps_its_own(tmp_path):
    assert write(tmp_path / "d", line(ASKED, SAID)).hash == "made"
    assert Dataset(tmp_path / "d").count(Example) == 1


@pytest.mark.parametrize("field", ["epochs", "beta", "dropout", "learning_rate"])
def test_a_setting_that_is_no_number_is_refused(field):
    for value in (float("nan"), float("inf")):
        with pytest.raises(ConfigurationError):
            TrainSettings(**{field: value})


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan")])
def test_a_reward_outside_its_range_is_refused(reward):
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        HarvestSettings(min_reward=reward)
