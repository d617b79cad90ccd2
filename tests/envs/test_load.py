"""Opening an environment by its name, and what is wrong with the arguments."""

from __future__ import annotations

import pytest

from cmat_graph.envs import ENVIRONMENTS, load_env
from cmat_graph.errors import ConfigurationError


def test_an_unknown_environment_names_the_known_ones():
    with pytest.raises(ConfigurationError, match="known: database, os"):
        load_env("data base")


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("size", ["12", 0, -1, 1.5, None, True])
def test_a_size_is_a_whole_number(name, size):
    with pytest.raises(ConfigurationError, match="size is a whole number of 1 or more, not"):
        load_env(name, size=size)


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("seed", ["7", [7], 0.5])
def test_a_seed_is_a_whole_number(name, seed):
    with pytest.raises(ConfigurationError, match="seed is a whole number, not"):
        load_env(name, seed=seed)
