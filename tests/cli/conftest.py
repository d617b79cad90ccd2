"""Commands run in this process, as a shell would see them."""

from __future__ import annotations

import sys

import pytest

from cmat_graph.cli import main


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; give exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cmat-graph", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run
