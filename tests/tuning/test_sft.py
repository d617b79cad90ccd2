"""What is computed less is computed the same: gradients of shared, joined and chunked rows, on tiny real models."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from families import tokenizer
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from small_rows import make_dataset
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from cmat_graph.errors import EmptyHarvestError
from cmat_graph.tuning.dataset import Example, Origin
from cmat_graph.tuning.encoding import EncodedRow, encode
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train.batches import FILLER, ByLength, Planner, Rows, alike
from cmat_graph.tuning.train.loss import can_share, token_budget, weighted_nll
from cmat_graph.tuning.train.sft import sft_trainer

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 400, "max_position_embeddings": 512}  # fmt: skip
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def tiny(kind="llama", config=LORA, **changed):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **TINY | changed)).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config) if config is not None else base
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # they begin at 0, where half of the gradients vanish
            torch.nn.init.normal_(weight, std=0.1)
    return model


def gradients(model):
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def close(one, other):
    assert one.keys() == other.keys()
    assert one
    most = max(float(grad.abs().max()) for grad in one.values())
    return all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5 * most) for name in one)


def planned(model, rows, **options):
    """The sum that is minimised, by the way of the trainer, with its gradients."""
    given = {"pad": 0, "budget": 10_000, "most_targets": 10_000, "shares": True} | options
    plan = Planner(**given)(list(Rows(rows)))
    losses = []
    for chunk in plan["chunks"]:
        loss = weighted_nll(model, model, chunk)
        loss.backward()
        losses.append(loss.item())
    return sum(losses), gradients(model), plan


def plain(model, rows):
    """The same, row by row, from the whole of the logits."""
    losses = []
    for row in rows:
        ids, weights = torch.tensor([row.ids]), torch.tensor(row.weights)
        logits = model(input_ids=ids).logits[0, -len(row.ids) :]
        nll = functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        loss = (nll * weights[1:]).sum()
        loss.backward()
        losses.append(loss.item())
    return sum(losses), gradients(model)


def some_rows(count=6, common=40, seed=0):
    """Rows with one beginning, of different lengths, with targets in between and at the end."""
    dice = random.Random(seed)
    head = [dice.randrange(400) for _ in range(common)]
    rows = []
    for number in range(count):
        sizes = [dice.randrange(3, 12) for _ in range(4)]
        weights = [0.0] * (common + sizes[0]) + [1.0] * sizes[1] + [0.0] * sizes[2] + [0.5 + number] * sizes[3]
        rows.append(EncodedRow(ids=head + [dice.randrange(400) for _ in range(sum(sizes))], weights=weights))
    return rows


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3_text", "qwen2"])
@pytest.mark.parametrize("budget", [10_000, 150, 1])
def test_the_gradient_is_that_of_whole_rows(kind, budget):
    model = tiny(kind, **({"sliding_window": 16} if kind == "gemma3_text" else {}))
    rows = some_rows()
    loss, found, plan = planned(model, rows, budget=budget, shares=can_share(model))
    expected, wanted = plain(model, rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert close(found, wanted)
    shares = [chunk["prefix"].shape[1] for chunk in plan["chunks"]]
    assert shares == {10_000: [40], 150: [40, 40, 0], 1: [0] * 6}[budget] or kind in ("gemma3_text", "mistral")


def test_joined_and_separate_rows_give_the_same_gradient():
    own = tokenizer("qwen")
    messages = [{"role": "user", "content": "How many rows?"}]
    for number in range(4):
        messages += [
            {"role": "assistant", "content": f"Look {number}.", "weight": 0.5 + number},
            {"role": "user", "content": f"There are {number}."},
        ]
    example = Example(messages=messages, origin=Origin(task_id="t"))
    joined, apart = (encode(example, own, limit=512, join=join).rows for join in (True, False))
    assert [len(joined), len(apart)] == [1, 4]
    assert sum(len(row.ids) for row in joined) < sum(len(row.ids) for row in apart) / 2
    model = tiny()
    results = [
        planned(model, rows, shares=shares)[:2] for rows, shares in ((joined, False), (apart, False), (apart, True))
    ]
    for loss, found in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert close(found, results[0][1])


@pytest.mark.parametrize(
    "config",
    [
        PromptEncoderConfig(num_virtual_tokens=4, task_type="CAUSAL_LM", encoder_hidden_size=8),
        PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    ],
    ids=["p-tuning", "prefix"],
)
def test_trained_prompts_are_never_shared_and_their_gradient_is_right(config):
    model = tiny(config=config)
    assert not can_share(model)
    rows = some_rows()
    loss, found, _ = planned(model, rows, shares=False)
    expected, wanted = plain(model, rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert close(found, wanted)


def test_what_cannot_be_read_once_for_all_is_not():
    assert can_share(tiny())
    assert can_share(tiny(config=None))
    dropping = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    assert not can_share(tiny(config=dropping))
    assert not can_share(tiny(attention_dropout=0.1))
    assert not can_share(tiny("gemma3_text"))
    stretching = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not can_share(tiny(rope_parameters=stretching))


def test_rows_are_grouped_by_how_they_begin_and_no_target_is_in_the_beginning():
    one, other = some_rows(3, seed=1), some_rows(3, seed=2)
    early = EncodedRow(ids=one[0].ids, weights=[0.0] * 10 + [1.0] * (len(one[0].ids) - 10))
    groups = list(alike(list(Rows([*one, early, *other]))))
    assert sorted(len(group) for group, _ in groups) == [1, 3, 3]
    for group, prefix in groups:
        assert all(not row.weights[: prefix + 1].any() for row in group)
        assert len({tuple(row.ids[:prefix]) for row in group}) == 1


def test_no_chunk_reads_or_scores_more_than_it_may():
    rows = some_rows(40)
    plan = Planner(pad=0, budget=200, most_targets=50, shares=True)(list(Rows(rows)))
    for chunk in plan["chunks"]:
        assert chunk["prefix"].numel() + chunk["ids"].numel() <= 200 + 8 * len(chunk["ids"])
        assert int((chunk["weights"] > 0).sum()) <= 50
    scored = sum(float(chunk["weights"].sum()) for chunk in plan["chunks"])
    assert scored == pytest.approx(sum(sum(row.weights) for row in rows))
    assert float(plan["weight"]) == pytest.approx(scored)
    assert int(plan["tokens"]) == sum(len(row.ids) for row in rows)


def test_a_process_without_rows_still_takes_part():
    model = tiny()
    loss, found, plan = planned(model, [])
    assert (loss, len(plan["chunks"])) == (0.0, 1)
    assert not any(grad.any() for grad in found.values())
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == found.keys()


def test_each_epoch_has_every_row_once_in_batches_of_similar_length():
    lengths = [random.Random(seed).randrange(10, 500) for seed in range(203)]
    sampler = ByLength(lengths, 8, seed=3)
    first = list(sampler)
    assert len(first) == len(sampler) == 208
    assert sorted(at for at in first if at != FILLER) == list(range(203))
    batches = [[lengths[at] for at in first[start : start + 8] if at != FILLER] for start in range(0, 208, 8)]
    assert sum(max(batch) - min(batch) for batch in batches) / len(batches) < 40
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def settings_of(**changed):
    return TrainSettings(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "seed": 1} | changed)


def arguments_of(folder, **changed):
    return {
        "output_dir": str(folder), "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-2,
        "use_cpu": True, "bf16": False, "activation_checkpointing": False, "logging_steps": 1, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "seed": 1, "dataloader_pin_memory": False,
    } | changed  # fmt: skip


def curve(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "data", train=8, validation=4)


def test_with_weights_of_one_it_learns_what_trls_own_trainer_does(dataset, tmp_path):
    own = tokenizer("qwen")
    ours, counts = sft_trainer(tiny(), own, dataset, settings_of(), arguments_of(tmp_path / "a"))
    assert counts["rows"] == counts["targets"] == 8
    rows = [ours.train_dataset[at] for at in range(8)]
    from datasets import Dataset as Table

    labels = [[int(i) if w else -100 for i, w in zip(row.ids, row.weights, strict=True)] for row in rows]
    table = Table.from_dict({"input_ids": [row.ids.tolist() for row in rows], "labels": labels})
    config = SFTConfig(**arguments_of(tmp_path / "b"), max_length=None)
    theirs = SFTTrainer(model=tiny(), args=config, train_dataset=table, processing_class=own)
    one, other = curve(ours), curve(theirs)
    assert len(one) == 2
    assert one == pytest.approx(other, rel=1e-4)
    for mine, its in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-4)
    tokens = [entry["num_tokens"] for entry in ours.state.log_history if "num_tokens" in entry]
    assert tokens[-1] == 2 * sum(len(row.ids) for row in rows)


def test_accumulated_micro_batches_give_the_same_weights(dataset, tmp_path):
    trainers = []
    for size in (8, 2):
        given = arguments_of(
            tmp_path / str(size), per_device_train_batch_size=size, gradient_accumulation_steps=8 // size
        )
        trainers.append(sft_trainer(tiny(), tokenizer("qwen"), dataset, settings_of(), given)[0])
    one, other = map(curve, trainers)
    assert one == pytest.approx(other, rel=1e-4)
    assert close(*({n: w.detach() for n, w in trainer.model.named_parameters()} for trainer in trainers))


def test_the_validation_loss_is_that_of_the_validation_rows(dataset, tmp_path):
    trainer, _ = sft_trainer(tiny(), tokenizer("qwen"), dataset, settings_of(), arguments_of(tmp_path / "a"))
    told = trainer.evaluate()["eval_loss"]
    rows = [
        EncodedRow(ids=row.ids.tolist(), weights=row.weights.tolist())
        for row in map(trainer.eval_dataset.__getitem__, range(4))
    ]
    expected, _ = plain(trainer.model, rows)
    assert told == pytest.approx(expected / sum(sum(row.weights) for row in rows), rel=1e-4)


def test_a_dataset_of_rows_that_are_all_too_long_is_refused(dataset, tmp_path):
    with pytest.raises(EmptyHarvestError, match=r"8 replies are longer than 5 tokens .* raise max_length"):
        sft_trainer(tiny(), tokenizer("qwen"), dataset, settings_of(max_length=5), arguments_of(tmp_path / "a"))


def test_a_larger_model_gets_smaller_chunks():
    small, large = tiny(config=None), tiny(config=None, hidden_size=512, intermediate_size=4096, num_hidden_layers=8)
    assert token_budget(small) > token_budget(large) >= 512
