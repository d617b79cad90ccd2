"""What several tests share: the benchmark data where it lies beside the project, and small real things."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import servers
from shared_data import DATA

from cmat_graph.cli import main
from cmat_graph.envs import load_env
from cmat_graph.envs.database import DatabaseEnv
from cmat_graph.traces import SQLTraceStore

hypothesis.settings.register_profile("house", deadline=None)  # the machine is shared: a slow example is no failure
hypothesis.settings.load_profile("house")


@pytest.fixture
def dbbench() -> Path:
    path = DATA / "dbbench" / "tasks.jsonl"
    if not path.is_file():
        pytest.skip(f"the DBBench task file is not at {path}")
    return path


@pytest.fixture
def traces(tmp_path: Path) -> SQLTraceStore:
    return SQLTraceStore(f"sqlite:///{tmp_path / 'traces.db'}")


@pytest.fixture(scope="session")
def env() -> DatabaseEnv:
    return load_env("database", size=64, seed=3)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with servers.postgres() as url:
        yield url


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.mariadb(tmp_path_factory.mktemp("mariadb")) as url:
        yield url


@pytest.fixture(scope="session")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with servers.chroma(tmp_path_factory.mktemp("chroma") / "data") as address:
        yield address


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
