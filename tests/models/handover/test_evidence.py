from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmat_graph.models.handover.evidence import Tally, is_worse, log_evidence

ALPHA = 0.1
TALLIES = st.integers(0, 60).flatmap(lambda n: st.builds(Tally, st.just(n), st.integers(0, n)))


def play(rng, candidate, current, share, episodes):
    """Play episodes one by one, looking after each; return how many it took to stop the candidate."""
    new = old = Tally()
    for played in range(1, episodes + 1):
        if rng.random() < share:
            new = new.plus(rng.random() < candidate)
        else:
            old = old.plus(rng.random() < current)
        if is_worse(new, old, alpha=ALPHA):
            return played
    return None


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_candidate_that_is_as_good_is_seldom_stopped_over_all_looks(rate, share):
    rng = random.Random(f"{rate} {share}")
    stopped = sum(play(rng, rate, rate, share, 200) is not None for _ in range(60))
    assert stopped <= 60 * ALPHA + 3 * math.sqrt(60 * ALPHA * (1 - ALPHA))


@pytest.mark.parametrize(("rate", "within"), [(0.0, 60), (0.2, 120), (0.4, 400)])
def test_one_that_is_clearly_worse_is_stopped_soon(rate, within):
    rng = random.Random(rate)
    took = sorted(play(rng, rate, 0.8, 0.2, 2_000) or 2_000 for _ in range(20))
    assert took[10] <= within


@settings(deadline=None)
@given(TALLIES, TALLIES)
def test_never_both_ways_and_never_against_what_was_seen(first, second):
    assert math.isfinite(log_evidence(first, second))
    assert not (is_worse(first, second, alpha=ALPHA) and is_worse(second, first, alpha=ALPHA))
    if first.rate is None or second.rate is None or first.rate >= second.rate:
        assert not is_worse(first, second, alpha=ALPHA)


@settings(deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.floats(0.05, 0.95))
def test_it_is_an_e_value(current, rate):
    """Its mean over what a candidate of the same rate may bring is at most 1, for any sample of the current model."""
    n, m = 6, current[0]
    mean = sum(
        math.comb(n, s) * math.comb(m, t) * rate ** (s + t) * (1 - rate) ** (n + m - s - t)
        * math.exp(log_evidence(Tally(n, s), Tally(m, t)))
        for s in range(n + 1)
        for t in range(m + 1)
    )  # fmt: skip
    assert mean <= 1.0 + 1e-9
