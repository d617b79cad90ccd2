from __future__ import annotations

import openai
import pytest
from clerk import Clerk, office

from cmat_graph import AdapterRegistry


@pytest.fixture
def registry(tmp_path):
    return AdapterRegistry(tmp_path / "adapters")


@pytest.fixture
def clerk():
    return Clerk()


@pytest.fixture
def url(clerk, registry):
    with office(clerk, registry) as url:
        yield url


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client
