"""Small real parts: the generated tasks, an assistant that always fails, and one that knows the gold."""

from __future__ import annotations

import pytest

from cmat_graph.experiments import Setup
from cmat_graph.models import ExpertChatModel
from cmat_graph.testing import ScriptedChatModel


@pytest.fixture
def setup(env, tmp_path):
    return Setup(folder=tmp_path / "x", env=env, test=env.tasks("test")[:3], train=env.tasks("train")[:8])


@pytest.fixture
def expert(env):
    return lambda: ExpertChatModel(demonstrations=env.demonstrations())


@pytest.fixture
def lazy():
    return lambda: ScriptedChatModel(replies=["OK"])


@pytest.fixture
def never():
    def load():
        raise AssertionError("nothing should have to be loaded")

    return load
