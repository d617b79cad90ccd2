from __future__ import annotations

import pytest

from cmat_graph.cli.bench import load_benchmark

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny_benchmark(monkeypatch):
    tuning = load_benchmark("tuning")
    monkeypatch.setattr(tuning, "SHAPE", tuning.SHAPE | {"hidden_size": 64, "num_hidden_layers": 2})
    monkeypatch.setattr(tuning, "_others", lambda: iter(()))  # they are long, and measured by tests of their own
    for name, value in {"TASKS": 24, "STEPS": {"random": 2, "nano": 2}, "CURVE": 3, "BATCH": 4}.items():
        monkeypatch.setattr(tuning, name, value)
    return tuning


def test_the_training_benchmark_gives_its_figures_and_equal_losses(tiny_benchmark):
    figures = {each["metric"]: each for each in tiny_benchmark.measure(1)}
    assert list(figures)[:6] == [
        "train_vs_trl_default",
        "train_vs_trl_tuned",
        "train_vs_bare_loop",
        "loss_curve_distance",
        "train_memory_vs_trl_default",
        "joined_vs_rows",
    ]
    assert figures["loss_curve_distance"]["value"] < 1e-4
    assert figures["joined_vs_rows"]["value"] > 1.5


def test_larger_shapes_are_measured_by_the_share_of_the_devices_multiplications(tiny_benchmark):
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True}  # fmt: skip
    (figure,) = tiny_benchmark.on_gpu({"tiny": shape}, device="cpu", length=64, batch=4)
    assert 0 < figure["value"] < 1
    assert set(figure["detail"]) >= {"apart", "alike", "measured_tflops"}
