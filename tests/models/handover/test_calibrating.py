from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from click.testing import CliRunner
from handover_replies import said

from cmat_graph import AdapterCard, AdapterRegistry
from cmat_graph.cli import cli
from cmat_graph.errors import ConfigurationError
from cmat_graph.models.handover.calibrating import calibrate
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.traces import Recorder
from cmat_graph.types import Task

NAME = "assistant/one"


@pytest.fixture
def registry(tmp_path):
    registry = AdapterRegistry(tmp_path / "adapters")
    card = AdapterCard(name="one", node="assistant", base="nano")
    registry.add(card, lambda folder: card)
    return registry


def record(traces, number, *, solved, confidence, split="test", reward=True, **told):
    """Play an episode of two replies; the first is the one that is less sure."""
    recorder = Recorder(traces, task=Task(id=str(number), prompt="?", split=split), env="e")
    config = {"callbacks": [recorder], "metadata": {"cmat_node": "assistant"}}
    about = {"adapter": NAME, **told}
    model = ScriptedChatModel(replies=[said("one", confidence, **about), said("two", 0.99, **about)])
    for _ in range(2):
        model.invoke("?", config)
    recorder.finish(reward=float(solved) if reward else None, stopped="ended", attempts=1)


def record_many(traces, episodes, **told):
    rng = random.Random(0)
    for number in range(episodes):
        confidence = rng.random()
        record(traces, number, solved=rng.random() < confidence**3, confidence=confidence, **told)


def test_it_is_fitted_to_the_least_sure_reply_and_kept_on_the_card(traces, registry):
    record_many(traces, 300)
    done = calibrate(traces, registry, "one")
    assert done.episodes == 300
    assert done.ece_after < 0.1 < done.ece_before
    assert done.brier_after < done.brier_before
    assert registry.get("one").calibration == done.card.calibration
    assert set(done.card.calibration) == {"a", "b", "episodes"}


def test_the_command_prints_what_it_brought(traces, registry):
    record_many(traces, 60)
    traces.flush()
    asked = ["adapters", "calibrate", "one", "--adapters", str(registry.root), "--traces", traces.url]
    told = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).output.splitlines()[-1])
    assert (told["adapter"], told["episodes"]) == (NAME, 60)
    assert "expected calibration error" in CliRunner().invoke(cli, asked).output


def test_a_mistyped_database_is_told_and_not_made(registry, tmp_path):
    asked = ["adapters", "calibrate", "one", "--adapters", str(registry.root)]
    done = CliRunner().invoke(cli, [*asked, "--traces", f"sqlite:///{tmp_path / 'nope.db'}"])
    assert "no trace database" in str(done.exception)
    assert not (tmp_path / "nope.db").exists()


def test_too_few_are_refused_and_it_says_why(traces, registry):
    for number in range(5):
        record(traces, number, solved=True, confidence=0.9, split="train")
        record(traces, number, solved=True, confidence=0.9, handed_over=True)
        record(traces, number, solved=True, confidence=0.9, reward=False)
        record(traces, number, solved=True, confidence=None)
        record(traces, number, solved=True, confidence=0.9, adapter="assistant/other")
        record(traces, number, solved=True, confidence=0.9)
    with pytest.raises(ConfigurationError, match="5 episodes of assistant/one can be used, 30 are needed") as told:
        calibrate(traces, registry, "one")
    for reason in ("training tasks", "another model helped", "without a reward", "without confidence", "other models"):
        assert f"{reason}: 5" in str(told.value)
    assert registry.get("one").calibration == {}


def test_training_tasks_count_only_when_asked_for(traces, registry):
    record_many(traces, 40, split="train")
    with pytest.raises(ConfigurationError, match="training tasks: 40"):
        calibrate(traces, registry, "one")
    assert calibrate(traces, registry, "one", split="train").episodes == 40


def test_a_card_without_calibration_is_read(registry):
    card = registry.get("one")
    file = registry.root / NAME / "card.json"
    values = json.loads(file.read_text())
    del values["calibration"]
    file.write_text(json.dumps(values))
    assert registry.get("one") == replace(card, calibration={})
