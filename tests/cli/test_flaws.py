"""`cmat-graph flaws`."""

from __future__ import annotations

import json

from click.testing import CliRunner

from cmat_graph.cli import cli
from cmat_graph.tuning.dataset import Dataset, Example


def test_it_writes_a_dataset_for_the_checker(tmp_path):
    out = tmp_path / "checks"
    done = CliRunner().invoke(cli, ["flaws", "--size", "32", "--out", str(out), "--json"], catch_exceptions=False)
    manifest = json.loads(done.stdout)
    assert manifest["rows"]["sft.train"] == Dataset(out).count(Example) > 20
    assert manifest["node"] == "checker"
    assert manifest["settings"] == {"environments": ["database"], "split": "train", "size": 32, "each": 1, "seed": 7}


def test_an_evaluation_split_is_refused(tmp_path):
    done = CliRunner().invoke(cli, ["flaws", "--size", "40", "--split", "test", "--out", str(tmp_path / "checks")])
    assert "which is for evaluation" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_shop_needs_its_files(tmp_path):
    done = CliRunner().invoke(cli, ["flaws", "--env", "shop", "--out", str(tmp_path / "checks")])
    assert "--tasks FOLDER" in str(done.exception)
