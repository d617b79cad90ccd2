"""One training after another on the bundled model: what is written, what it says, and what stops it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_rows import make_dataset

from cmat_graph.bases import NANO_FOLDER
from cmat_graph.errors import ConfigurationError, EmptyHarvestError, ModelNotFoundError, TrainingError
from cmat_graph.tuning.settings import TrainSettings
from cmat_graph.tuning.train import loading, train
from cmat_graph.tuning.train.checkpoints import fingerprint, last_checkpoint
from cmat_graph.tuning.train.loading import load_model
from cmat_graph.tuning.train.processes import share

NANO = str(NANO_FOLDER)
SHORT = TrainSettings(epochs=3, batch_size=8, save_steps=2, rank=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("rows") / "dataset", validation=3)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    steps: list[tuple[int, int]] = []
    done = train(
        dataset,
        NANO,
        folder / "out",
        settings=SHORT,
        work=folder / "work",
        progress=lambda step, total, loss: steps.append((step, total)),
    )
    return done, folder, steps


def test_the_loss_falls_and_everything_is_told(trained):
    done, _, steps = trained
    assert done.loss[-1] < done.loss[0] - 1
    assert len(done.eval_loss) == 3
    assert done.eval_loss[-1] < done.eval_loss[0]
    assert (done.examples, done.steps, done.processes, done.resumed_from) == (16, 6, 1, 0)
    assert steps == [(step, 6) for step in range(1, 7)]
    assert done.tokens > 16 * 3 * 10
    assert {"torch", "peft", "trl", "cmat-graph"} <= set(done.versions)


def test_nothing_in_the_folder_names_a_path_or_a_machine(trained):
    _, folder, _ = trained
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not [path for path in files for text in (str(folder), NANO) if text.encode() in path.read_bytes()]
    assert not [path for path in files if socket.gethostname() in path.name.split(".")]


def test_tensorboard_shows_every_step(trained):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done, folder, _ = trained
    events = event_accumulator.EventAccumulator(str(folder / "out" / "logs")).Reload()
    scalars = events.Scalars("train/loss")
    assert [each.step for each in scalars] == [1, 2, 3, 4, 5, 6]
    assert [each.value for each in scalars] == pytest.approx(done.loss, abs=1e-4)
    assert len(events.Scalars("eval/loss")) == 3


def test_a_training_that_was_through_is_not_done_again(dataset, trained, tmp_path):
    done, folder, _ = trained
    again = train(dataset, NANO, tmp_path / "out", settings=SHORT, work=folder / "work")
    assert (again.resumed_from, again.loss) == (6, done.loss)
    first, second = (load_file(path / "adapter_model.safetensors") for path in (folder / "out", tmp_path / "out"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_adapter_goes_on_from_another(dataset, trained, tmp_path):
    done, folder, _ = trained
    more = train(dataset, NANO, tmp_path / "out", settings=SHORT, work=tmp_path / "work", init=folder / "out")
    assert more.loss[0] < done.loss[-1] + 0.5
    assert more.loss[-1] < done.loss[-1]


def test_other_data_settings_or_beginnings_start_over(dataset, tmp_path):
    other = make_dataset(tmp_path / "other", train=2, seed=1)
    seen = {
        fingerprint(dataset.hash, NANO, SHORT),
        fingerprint(other.hash, NANO, SHORT),
        fingerprint(dataset.hash, "some/base", SHORT),
        fingerprint(dataset.hash, NANO, TrainSettings(seed=1)),
        fingerprint(dataset.hash, NANO, SHORT, Path(NANO)),
    }
    assert len(seen) == 5
    quieter = TrainSettings(epochs=3, batch_size=8, save_steps=50, rank=4, report_to=("wandb",))
    assert fingerprint(dataset.hash, NANO, quieter) == fingerprint(dataset.hash, NANO, SHORT)


def test_a_checkpoint_that_was_not_finished_does_not_count(tmp_path):
    for step, complete in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / "complete").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_a_loss_that_is_no_number_stops_and_the_last_good_checkpoint_stays(dataset, tmp_path):
    wild = TrainSettings(epochs=20, batch_size=8, save_steps=1, rank=4, learning_rate=1e36)
    with pytest.raises(TrainingError, match=r"at step \d+; the last good checkpoint, of step \d+, is kept in"):
        train(dataset, NANO, tmp_path / "out", settings=wild, work=tmp_path / "work")
    kept = last_checkpoint(next((tmp_path / "work").iterdir()))
    assert all(torch.isfinite(weight).all() for weight in load_file(kept / "adapter_model.safetensors").values())
    assert not (tmp_path / "out").exists()


def test_rows_past_the_limit_are_left_out_never_cut(dataset, tmp_path):
    with pytest.raises(EmptyHarvestError, match="8 tokens"):
        train(dataset, NANO, tmp_path / "out", settings=TrainSettings(max_length=8), work=tmp_path / "work")


def test_a_small_base_is_trained_in_float32_on_every_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert load_model(str(NANO_FOLDER), TrainSettings()).dtype == torch.float32
    assert load_model(str(NANO_FOLDER), TrainSettings(dtype="bfloat16")).dtype == torch.bfloat16
    monkeypatch.setattr(loading, "is_small", lambda location: False)
    assert load_model(str(NANO_FOLDER), TrainSettings()).dtype == torch.bfloat16
    assert load_model(str(NANO_FOLDER), TrainSettings(method="full")).dtype == torch.float32


def test_a_base_that_is_damaged_is_one_clear_error(dataset, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for file in NANO_FOLDER.iterdir():
        (base / file.name).write_bytes(file.read_bytes()[: 5_000 if file.suffix == ".safetensors" else None])
    with pytest.raises(ModelNotFoundError, match="download broke off"):
        train(dataset, str(base), tmp_path / "out", settings=SHORT, work=tmp_path / "work")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it can here")
@pytest.mark.parametrize(
    ("setting", "told"), [({"method": "qlora"}, "take --method lora"), ({"sharding": "fsdp"}, "leave --sharding out")]
)
def test_what_needs_a_gpu_says_so_before_anything_is_loaded(dataset, tmp_path, setting, told):
    with pytest.raises(ConfigurationError, match=told):
        train(dataset, "no/base", tmp_path / "out", settings=TrainSettings(**setting), work=tmp_path / "work")


def test_a_tracker_that_is_unknown_or_not_installed_names_the_fix(dataset, tmp_path):
    for name, told in (("neptune", "wandb, mlflow"), ("mlflow", "pip install mlflow")):
        settings = TrainSettings(report_to=(name,))
        with pytest.raises(ConfigurationError, match=told):
            train(dataset, NANO, tmp_path / "out", settings=settings, work=tmp_path / "work")


def test_a_step_is_shared_evenly_or_refused(monkeypatch):
    assert share(16, 0) == (16, 1)
    assert share(16, 4) == (4, 4)
    with pytest.raises(ConfigurationError, match="a divisor of 16"):
        share(16, 5)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert share(12, 2) == (2, 2)
    with pytest.raises(ConfigurationError, match="16 rows cannot be shared by 3"):
        share(16, 0)
