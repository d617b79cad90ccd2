"""What a critic's row becomes in training: loss on its last reply alone, and an adapter of its own."""

from __future__ import annotations

import pytest
from debate_recordings import record, say
from transformers import AutoTokenizer

from cmat_graph import AdapterRegistry
from cmat_graph.bases import resolve_base
from cmat_graph.tuning import TrainSettings, distill
from cmat_graph.tuning.debates import DebateSetSettings, debate_sets, preference_sets
from cmat_graph.tuning.encoding import encode


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve_base("nano"))


def learned(row, tokenizer, **options):
    """Return the texts that carry loss."""
    texts = []
    for encoded in encode(row, tokenizer, limit=2000, **options).rows:
        part = []
        for token, weight in zip([*encoded.ids, None], [*encoded.weights, 0.0], strict=True):
            if weight:
                part.append(token)
            elif part:
                texts.append(tokenizer.decode(part))
                part = []
    return texts


def make(traces, folder, **rules):
    record(traces, "12 + 13", ["24", "25"], ["25", "25"], ["25", "25"], consensus="25")
    return debate_sets(traces, folder, settings=DebateSetSettings(**rules), validation_share=0)


def test_the_loss_covers_the_last_reply_with_its_end_and_nothing_else(traces, tokenizer, tmp_path):
    (row,) = make(traces, tmp_path / "sets")["critic-0"].examples()
    assert learned(row, tokenizer) == [f"{say(0, '25', 3)}{tokenizer.eos_token}"]
    (row,) = make(traces, tmp_path / "sets")["generator-1"].examples()
    assert learned(row, tokenizer) == [f"{say(1, '25')}{tokenizer.eos_token}"]


def test_all_turns_puts_it_on_every_reply_of_the_chat(traces, tokenizer, tmp_path):
    (row,) = make(traces, tmp_path / "sets", loss="all_turns")["critic-0"].examples()
    wanted = [f"{said}{tokenizer.eos_token}" for said in (say(0, "24"), say(0, "25", 2), say(0, "25", 3))]
    assert learned(row, tokenizer) == wanted
    assert learned(row, tokenizer, join=False) == wanted


def test_a_row_that_is_too_long_is_left_out_whole_and_never_cut(traces, tokenizer, tmp_path):
    (row,) = make(traces, tmp_path / "sets")["critic-0"].examples()
    encoded = encode(row, tokenizer, limit=20)
    assert (encoded.rows, encoded.too_long) == ([], 1)


@pytest.mark.slow
def test_each_agent_gets_an_adapter_of_its_own(traces, tmp_path):
    registry = AdapterRegistry(tmp_path / "adapters")
    sets = make(traces, tmp_path / "sets")
    few = TrainSettings(max_steps=1, rank=2)
    cards = [distill(None, registry, dataset=sets[node].folder, settings=few, name="first") for node in sets]
    assert [card.id for card in cards] == [f"{node}/first" for node in ("generator-1", "critic-0", "critic-1")]
    assert cards[1].counts["C- rows"] == 1
    again = distill(None, registry, dataset=sets["critic-0"].folder, settings=few, name="second", init=cards[1])
    assert again.init == cards[1].key


@pytest.mark.slow
def test_preferences_train_with_dpo(traces, tmp_path):
    record(traces, "12 + 13", ["24", "25"], ["24", "25"], consensus="25")
    sets = preference_sets(traces, tmp_path / "sets", validation_share=0)
    card = distill(
        None,
        AdapterRegistry(tmp_path / "adapters"),
        dataset=sets["critic-0"].folder,
        settings=TrainSettings(objective="dpo", max_steps=1, rank=2),
    )
    assert card.node == "critic-0"
