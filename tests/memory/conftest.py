"""One fixture for the contract of stores: LangGraph's own, and ours in each way it can be opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.store.base import BaseStore
from stores import ALL, opener


@pytest.fixture(params=ALL)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStore]:
    opened = opener(request.param, request, tmp_path / "store")()
    yield opened
    if request.param != "InMemoryStore":
        opened.close()
