from __future__ import annotations

import pytest
from random_weights import make_adapter, make_base


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A small random Llama with nano's tokenizer, as a folder."""
    return make_base(tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="session")
def adapters(small, tmp_path_factory):
    """Six random adapters on it, of several ranks and shapes."""
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapter(small, root, f"agent-{i}", seed=i, rank=(4, 8, 16)[i % 3]) for i in range(6)]
