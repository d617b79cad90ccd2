"""General instructions: they are right, held-out ones stay out, and each arm of the mix is trained alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cmat_graph import AdapterRegistry
from cmat_graph.errors import ConfigurationError
from cmat_graph.experiments import run_mix, save_result
from cmat_graph.experiments.general import follow, make_instructions, write_instructions
from cmat_graph.experiments.mix import ASKED, steps_of
from cmat_graph.splits import validation_tasks
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.tuning.dataset import Dataset
from cmat_graph.tuning.settings import TrainSettings


def test_no_instruction_is_both_trained_on_and_asked():
    trained = {each.prompt for seed in range(3) for each in make_instructions(600, seed=seed)}
    asked = {each.prompt for seed in range(3) for each in make_instructions(100, seed=seed, held_out=True)}
    assert len(asked) > 100
    assert not trained & asked
    assert len(make_instructions(2048)) == len({each.prompt for each in make_instructions(2048)}) == 2048


def test_the_answers_are_right():
    found = {each.prompt: each.answer for each in make_instructions(400)}
    for prompt, answer in found.items():
        words = prompt.split(": ")[-1].rstrip("?").split()
        if prompt.startswith("Turn"):
            assert answer.split() == words[::-1]
        if prompt.startswith("How many"):
            assert answer == str(len(words))
        if prompt.endswith(" ="):
            assert int(answer) == eval(prompt.removesuffix(" ="))
    assert {prompt.split()[0] for prompt in found} >= {"Sort", "Turn", "How", "Which", "What", "Write"}


def test_an_instruction_is_followed_to_the_letter_or_not_at_all():
    asked = make_instructions(8)
    model = ScriptedChatModel(replies=[f" {asked[0].answer}.\n", f"It is {asked[1].answer}"])
    told = follow(model, asked[:2], concurrency=1)
    assert list(told.values()) == [1.0, 0.0]


def test_the_file_has_one_conversation_a_line(tmp_path):
    made = make_instructions(5)
    write_instructions(made, tmp_path / "g.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    assert [row["messages"][1]["content"] for row in rows] == [each.answer for each in made]


def test_each_arm_is_given_the_steps_of_the_agent_rows(setup):
    rows = len(setup.train) - len(validation_tasks(setup.train))
    assert 0 < rows < 8
    assert steps_of(replace(setup, training=TrainSettings(epochs=3, batch_size=1))) == 3 * rows
    assert steps_of(setup) == 4  # 4 epochs, 8 at once


@pytest.mark.slow
def test_the_arms_differ_in_their_share_alone(setup):
    training = TrainSettings(max_steps=2, batch_size=4)
    setup = replace(setup, test=setup.test[:1], training=training)
    result = run_mix(setup, asked=2, eta=0.25)
    assert [arm.name for arm in result.arms] == ["base", "agent only", "general only", "mixed"]
    assert all(arm.general is not None for arm in result.arms)
    cards = {card.name: card for card in AdapterRegistry(setup.folder / "adapters").list()}
    assert [cards[f"{name}-0"].harvest["eta"] for name in ("agent-only", "general-only", "mixed")] == [1.0, 0.0, 0.25]
    assert {card.settings["max_steps"] for card in cards.values()} == {2}
    sources = {name: {row.origin.source for row in rows_of(card)} for name, card in cards.items()}
    assert sources == {"agent-only-0": {"agent"}, "general-only-0": {"general"}, "mixed-0": {"agent", "general"}}
    asked = {each.prompt for each in make_instructions(ASKED, seed=1, held_out=True)}
    assert not [card for card in cards.values() for row in rows_of(card) if row.messages[0]["content"] in asked]
    save_result(result, setup.folder)
    texts = [path.read_text() for path in setup.folder.rglob("*") if path.suffix in (".json", ".jsonl", ".md", ".html")]
    assert not [text for text in texts if str(setup.folder) in text]
    assert run_mix(setup, asked=2, eta=0.25).arms == result.arms


def rows_of(card):
    return list(Dataset(Path(card.folder) / "dataset").examples())


def test_a_mix_of_one_is_refused(setup):
    with pytest.raises(ConfigurationError, match="--eta"):
        run_mix(setup, eta=1.0)
    with pytest.raises(ConfigurationError, match="no general instructions"):
        run_mix(setup, general=setup.folder / "none.jsonl")
