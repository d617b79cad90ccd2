"""DPO and KTO: rows as they are served, nothing cut, nothing that cannot teach."""

from __future__ import annotations

import json

import pytest
import torch
from small_rows import make_dataset

from cmat_graph.bases import NANO_FOLDER
from cmat_graph.errors import ConfigurationError, EmptyHarvestError
from cmat_graph.models.engine import Engine
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train import train
from cmat_graph.tuning.train.arguments import to_arguments
from cmat_graph.tuning.train.loading import load_model, load_tokenizer
from cmat_graph.tuning.train.preference import EQUAL, TOO_LONG, Steps, preference_trainer

NANO = str(NANO_FOLDER)


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "dataset", train=10, validation=2)


def _build(dataset, tmp_path, **changed):
    settings = TrainSettings(**{"batch_size": 4, "rank": 4, "save_steps": 0} | changed)
    tokenizer = load_tokenizer(NANO)
    arguments = to_arguments(settings, NANO, tmp_path / "work", validates=True)
    return preference_trainer(load_model(NANO, settings), tokenizer, dataset, settings, arguments, [])


def test_a_pairs_prompt_is_the_prompt_that_is_served(dataset, tmp_path):
    trainer, _ = _build(dataset, tmp_path, objective="dpo")
    engine = Engine("nano")
    rows = list(trainer.train_dataset)
    for row, pair in zip(rows, dataset.pairs(), strict=True):
        assert row["prompt_ids"] == engine.encode(pair.prompt)
        assert engine.tokenizer.decode(row["chosen_ids"]) == pair.chosen["content"] + engine.tokenizer.eos_token
        assert engine.tokenizer.decode(row["rejected_ids"]) == pair.rejected["content"] + engine.tokenizer.eos_token
    engine.close()
    assert len(trainer.eval_dataset) == 2


@pytest.mark.slow
def test_training_raises_the_better_reply_over_the_worse(dataset, tmp_path):
    trainer, _ = _build(dataset, tmp_path, objective="dpo", epochs=6, learning_rate=1e-3)
    trainer.train()
    model = trainer.model.eval()

    def logprob(prompt: list[int], reply: list[int]) -> float:
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return float(scores.gather(1, torch.tensor(reply)[:, None]).sum())

    gained = []
    for row in trainer.train_dataset:
        margins = []
        for adapter in (True, False):
            if adapter:
                better, worse = (logprob(row["prompt_ids"], row[name]) for name in ("chosen_ids", "rejected_ids"))
            else:
                with model.disable_adapter():
                    better, worse = (logprob(row["prompt_ids"], row[name]) for name in ("chosen_ids", "rejected_ids"))
            margins.append(better - worse)
        gained.append(margins[0] - margins[1])
    assert min(gained) > 1


def test_long_and_equal_pairs_are_left_out_and_counted(dataset, tmp_path):
    rows = (dataset.folder / "pairs.train.jsonl").read_text().splitlines(keepends=True)
    rows[0] = rows[0].replace("add", "add " * 1000)
    same = json.loads(rows[1])
    same["rejected"] = same["chosen"]
    rows[1] = json.dumps(same) + "\n"
    (dataset.folder / "pairs.train.jsonl").write_text("".join(rows))
    trainer, counts = _build(dataset, tmp_path, objective="dpo")
    assert (len(trainer.train_dataset), counts[TOO_LONG], counts[EQUAL]) == (8, 1, 1)


def test_ktos_reference_replies_belong_to_other_prompts_and_both_kinds_weigh_the_same(dataset, tmp_path):
    trainer, _ = _build(dataset, tmp_path, objective="kto")
    rows = list(trainer.train_dataset)
    assert (len(rows), sum(row["label"] for row in rows)) == (15, 10)
    own = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])) for row in rows}
    assert not [row for row in rows if (tuple(row["prompt_ids"]), tuple(row["KL_completion_ids"])) in own]
    assert (trainer.desirable_weight * 10, trainer.undesirable_weight * 5) == (10, 10)


@pytest.mark.parametrize("keep", [False, True])
def test_every_step_is_full_and_depends_on_seed_and_epoch_alone(keep):
    steps = Steps(10, 4, seed=3, keep=keep)
    first = list(steps)
    assert len(first) == len(steps) == 12
    assert set(first) == set(range(10))
    assert list(Steps(10, 4, seed=3, keep=keep)) == first
    steps.set_epoch(1)
    assert list(steps) != first
    together = {frozenset(first[at : at + 4]) for at in (0, 4, 8)}
    assert ({0, 1, 2, 3} in together) == keep


def test_kto_refuses_one_kind_alone_and_one_row_at_a_time(dataset, tmp_path):
    for kept, told in (("good", "all 4 are good"), ("bad", "all 2 are bad")):
        only = make_dataset(tmp_path / kept, train=4, good=kept == "good", bad=kept == "bad")
        with pytest.raises(EmptyHarvestError, match=told):
            _build(only, tmp_path, objective="kto")
    with pytest.raises(ConfigurationError, match="two rows at a time"):
        _build(dataset, tmp_path, objective="kto", micro_batch=1)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_nothing_to_learn_from_names_the_fix(tmp_path, objective):
    empty = make_dataset(tmp_path / "dataset", train=0)
    settings = TrainSettings(objective=objective)
    with pytest.raises(EmptyHarvestError, match="record episodes in which actions failed"):
        train(empty, NANO, tmp_path / "out", settings=settings, work=tmp_path / "work")


@pytest.mark.slow
def test_preferences_go_on_from_an_adapter_and_stay_close_to_it(dataset, tmp_path):
    """TRL keeps a copy of the adapter as the reference; only the trained one is saved."""
    first = TrainSettings(rank=4, batch_size=5, epochs=2, save_steps=0)
    train(dataset, NANO, tmp_path / "sft", settings=first, work=tmp_path / "work")
    second = TrainSettings(rank=4, batch_size=5, epochs=2, save_steps=2, objective="dpo")
    done = train(dataset, NANO, tmp_path / "dpo", settings=second, work=tmp_path / "work", init=tmp_path / "sft")
    assert done.loss[0] == pytest.approx(0.6931, abs=1e-3)  # ln 2: both are the same at first
    assert not [path for path in (tmp_path / "dpo").rglob("*") if "ref" in path.name]
    again = train(dataset, NANO, tmp_path / "again", settings=second, work=tmp_path / "work", init=tmp_path / "sft")
    assert (again.resumed_from, again.loss) == (done.steps, done.loss)
