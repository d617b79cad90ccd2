"""Trainings in processes of their own: killed and gone on with, two that train as one, on a disk that is full."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import train_child
from safetensors.torch import load_file
from small_rows import make_dataset

from cmat_graph.tuning.train.arguments import CONFIGS
from cmat_graph.tuning.train.checkpoints import last_checkpoint

SETTINGS = {"epochs": 4, "batch_size": 8, "save_steps": 2, "rank": 4}
LAUNCH = "from torch.distributed.run import main; main()"


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "dataset", train=20, validation=2)


def _as_told(dataset, folder: Path, settings, told):
    told |= {"dataset": str(dataset.folder), "target": str(folder / "out"), "work": str(folder / "work")}
    return told | {"settings": SETTINGS | (settings or {})}


def _train(dataset, folder: Path, *, processes: int = 1, settings=None, **told) -> subprocess.CompletedProcess[str]:
    """Train; of several processes the first is what counts."""
    words = train_child.train_as, _as_told(dataset, folder, settings, told)
    return forked.run(*words) if processes == 1 else forked.run_ranks(processes, *words)[0]


def _train_by_launcher(dataset, folder: Path, settings) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = ["--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", port]
    words = [train_child.__file__, json.dumps(_as_told(dataset, folder, settings, {}))]
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", LAUNCH, *places, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ | quiet)


def _told(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _distance(one: Path, other: Path) -> float:
    first, second = (load_file(folder / "out" / "adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"objective": "dpo"}, {"method": "p-tuning", "virtual_tokens": 6}])
def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been(dataset, tmp_path, settings):
    whole = _told(_train(dataset, tmp_path / "whole", settings=settings))
    killed = _train(dataset, tmp_path / "killed", settings=settings, kill_at=7)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "out").exists()
    assert last_checkpoint(next((tmp_path / "killed" / "work").iterdir())).name == "checkpoint-6"
    gone_on = _told(_train(dataset, tmp_path / "killed", settings=settings))
    assert gone_on["resumed_from"] == 6
    assert gone_on["loss"] == pytest.approx(whole["loss"], abs=1e-4)
    assert _distance(tmp_path / "whole", tmp_path / "killed") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "launched"), [({}, True), ({"micro_batch": 2}, False), ({"objective": "dpo"}, False)]
)
def test_two_processes_train_as_one_does(dataset, tmp_path, settings, launched):
    one = _told(_train(dataset, tmp_path / "one", settings=settings | {"micro_batch": 0}))
    if launched:
        two = _told(_train_by_launcher(dataset, tmp_path / "two", settings))
    else:
        two = _told(_train(dataset, tmp_path / "two", settings=settings, processes=2))
    assert two["processes"] == 2
    assert two["loss"] == pytest.approx(one["loss"], abs=2e-3)
    assert _distance(tmp_path / "one", tmp_path / "two") < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"objective": "dpo"}])
def test_two_processes_that_were_killed_amid_an_epoch_go_on(dataset, tmp_path, settings):
    """After 4 steps, of which an epoch has 3."""
    whole = _told(_train(dataset, tmp_path / "whole", processes=2, settings=settings))
    killed = _train(dataset, tmp_path / "killed", processes=2, settings=settings, kill_at=5)
    assert killed.returncode != 0
    gone_on = _told(_train(dataset, tmp_path / "killed", processes=2, settings=settings))
    assert gone_on["resumed_from"] == 4
    assert gone_on["loss"] == pytest.approx(whole["loss"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("save_steps", [2, 0])
def test_a_full_disk_is_one_clear_error(dataset, tmp_path, save_steps):
    """A limit on the size of files stands for it: writing fails in the middle, as on a full disk."""
    told = _told(_train(dataset, tmp_path, settings={"save_steps": save_steps, "rank": 16}, file_bytes=200_000))
    what = "a checkpoint" if save_steps else "the trained weights"
    assert f"no room for {what}" in told["error"]
    assert "free some disk space" in told["error"]


def test_the_file_for_fsdp_is_read_by_transformers_and_accelerate(tmp_path):
    from accelerate import FullyShardedDataParallelPlugin
    from transformers import TrainingArguments

    read = TrainingArguments(output_dir=str(tmp_path), fsdp=True, fsdp_config=str(CONFIGS / "fsdp.json"), use_cpu=True)
    plugin = FullyShardedDataParallelPlugin(**read.fsdp_plugin_args)
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert set(json.loads((CONFIGS / "fsdp.json").read_text())) <= set(read.fsdp_config)


@pytest.mark.parametrize("stage", [2, 3])
def test_the_files_for_deepspeed_leave_to_the_trainer_what_the_settings_say(stage):
    """DeepSpeed 0.19.8's own reader took them when they were written; it needs no GPU, but a build of its own."""
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    config = HfDeepSpeedConfig(str(CONFIGS / f"zero{stage}.json"))
    assert (config.is_zero2(), config.is_zero3()) == (stage == 2, stage == 3)
    for name in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "bf16.enabled"):
        assert config.get_value(name) == "auto"
    assert config.get_value("optimizer.params.lr") == "auto"
