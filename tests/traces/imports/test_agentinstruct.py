"""Conversations with a flag on each turn, as AgentInstruct has them."""

from __future__ import annotations

import json

import pytest

from cmat_graph.errors import DatasetError
from cmat_graph.traces.imports import ImportSettings, import_traces

ROW = {
    "id": "db_12",
    "conversations": [
        {"from": "human", "loss": None, "value": "You operate a database. Answer with `Action:`."},
        {"from": "gpt", "loss": False, "value": "Ok."},
        {"from": "human", "loss": None, "value": "How many goals did Brazil score?"},
        {"from": "gpt", "loss": True, "value": "Action: Operation\nSELECT goals FROM teams"},
        {"from": "human", "loss": None, "value": "[(9,)]"},
        {"from": "gpt", "loss": True, "value": "Action: Answer\n9"},
    ],
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_turn_that_carries_no_loss_is_context_and_no_step(traces, tmp_path):
    done = import_traces(write(tmp_path / "db.jsonl", ROW), traces, form="agentinstruct")

    assert (done.episodes, done.steps) == (1, 2)
    (episode,) = traces.episodes()
    assert [step.completion for step in episode.steps] == [
        "Action: Operation\nSELECT goals FROM teams",
        "Action: Answer\n9",
    ]
    assert [message["role"] for message in episode.steps[0].messages] == ["user", "assistant", "user"]
    assert episode.steps[0].messages[1]["content"] == "Ok."


def test_the_task_is_what_was_asked_and_not_the_rules(traces, tmp_path):
    import_traces(write(tmp_path / "db.jsonl", ROW), traces, form="agentinstruct")
    (episode,) = traces.episodes()
    assert (episode.task.id, episode.task.prompt) == ("db_12", "How many goals did Brazil score?")
    assert (episode.env, episode.reward, episode.task.split) == ("database", 1.0, "train")


def test_each_step_begins_where_the_one_before_ended(traces, tmp_path):
    import_traces(write(tmp_path / "db.jsonl", ROW), traces, form="agentinstruct")
    (episode,) = traces.episodes()
    first, second = episode.steps
    said = {"role": "assistant", "content": first.completion}
    assert second.messages == [*first.messages, said, {"role": "user", "content": "[(9,)]"}]


def test_a_conversation_without_flags_teaches_with_every_turn(traces, tmp_path):
    turns = [{"from": turn["from"], "value": turn["value"]} for turn in ROW["conversations"]]
    import_traces(write(tmp_path / "x.jsonl", {"conversations": turns}), traces, form="agentinstruct")
    (episode,) = traces.episodes()
    assert len(episode.steps) == 3
    assert episode.env == "agentinstruct"


def test_two_rows_of_one_name_are_two_episodes(traces, tmp_path):
    other = {**ROW, "conversations": ROW["conversations"][:4]}
    done = import_traces(write(tmp_path / "db.jsonl", ROW, other), traces, form="agentinstruct")
    assert done.episodes == 2


def test_a_reward_may_be_given(traces, tmp_path):
    settings = ImportSettings(reward=0.5, env="shop", node="actor")
    import_traces(write(tmp_path / "db.jsonl", ROW), traces, form="agentinstruct", settings=settings)
    (episode,) = traces.episodes()
    assert (episode.reward, episode.env, {step.node for step in episode.steps}) == (0.5, "shop", {"actor"})


def test_a_turn_of_nobody_is_refused(traces, tmp_path):
    row = {"id": "x", "conversations": [{"from": "martian", "value": "hm"}]}
    with pytest.raises(DatasetError, match="`from` and `value`"):
        import_traces(write(tmp_path / "x.jsonl", row), traces, form="agentinstruct")


def test_many_are_written_whole(traces, tmp_path):
    rows = [{**ROW, "id": f"db_{number}"} for number in range(100)]
    seen = []
    done = import_traces(write(tmp_path / "db.jsonl", *rows), traces, form="agentinstruct", progress=seen.append)
    assert (done.episodes, done.steps, traces.dropped) == (100, 200, 0)
    assert seen == [*range(1, 101)]
    assert sum(run["steps"] for run in traces.runs()) == 200
