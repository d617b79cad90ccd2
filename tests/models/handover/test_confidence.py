from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.handover.confidence import (
    Calibration,
    brier_score,
    calibrated,
    confidence_metadata,
    expected_calibration_error,
    raw_confidence,
)

LOGPROBS = st.lists(st.floats(max_value=0.0, allow_nan=False), max_size=20)
SURE = st.floats(0.0, 1.0)


@settings(deadline=None)
@given(LOGPROBS)
def test_raw_confidence_is_a_share(logprobs):
    assert 0.0 <= raw_confidence(logprobs) <= 1.0


def test_only_the_least_likely_tokens_count():
    assert raw_confidence([-0.1] * 5 + [0.0] * 500) == pytest.approx(math.exp(-0.5))
    assert raw_confidence([-0.2] + [-0.001] * 400) > 0.8


@pytest.mark.parametrize("logprobs", [[], [math.nan], [-math.inf]])
def test_what_is_not_known_is_not_sure(logprobs):
    assert raw_confidence(logprobs) < 1e-12


def test_the_fit_finds_the_curve_that_made_the_data():
    rng = random.Random(0)
    raw = [rng.random() for _ in range(4_000)]
    truth = Calibration(a=2.0, b=1.5)
    solved = [rng.random() < truth.of(each) for each in raw]
    fitted = Calibration.fit(raw, solved)
    assert (fitted.a, fitted.b) == (pytest.approx(2.0, abs=0.25), pytest.approx(1.5, abs=0.25))
    after = [fitted.of(each) for each in raw]
    assert expected_calibration_error(after, solved) < 0.03 < expected_calibration_error(raw, solved)
    assert brier_score(after, solved) < brier_score(raw, solved)


@settings(deadline=None)
@given(st.lists(st.tuples(SURE, st.booleans()), min_size=1, max_size=40))
def test_a_fit_is_finite_keeps_the_order_and_never_certain(pairs):
    fitted = Calibration.fit([raw for raw, _ in pairs], [solved for _, solved in pairs])
    assert math.isfinite(fitted.a)
    assert math.isfinite(fitted.b)
    told = [fitted.of(raw) for raw in (0.0, 0.1, 0.5, 0.9, 1.0)]
    assert told == sorted(told)
    assert all(0.0 <= each <= 1.0 for each in told)


@pytest.mark.parametrize(("solved", "chance"), [(True, 11 / 12), (False, 1 / 12)])
def test_all_alike_is_a_constant_short_of_certainty(solved, chance):
    fitted = Calibration.fit([0.1 * i for i in range(10)], [solved] * 10)
    assert fitted.a == 0.0
    assert fitted.of(0.01) == fitted.of(0.99) == pytest.approx(chance)


def test_confidence_that_points_the_wrong_way_is_not_believed():
    fitted = Calibration.fit([0.9, 0.8, 0.2, 0.1], [False, False, True, True])
    assert fitted.of(0.9) == fitted.of(0.1) == pytest.approx(0.5)


def test_no_pairs_are_refused():
    with pytest.raises(ConfigurationError, match="needs pairs"):
        Calibration.fit([], [])
    with pytest.raises(ConfigurationError, match="2 confidences came with 1"):
        Calibration.fit([0.1, 0.2], [True])


def test_a_card_keeps_it():
    fitted = Calibration.fit([0.9, 0.8, 0.3, 0.2, 0.1], [True, True, False, True, False])
    assert Calibration.from_dict(fitted.to_dict()) == fitted
    assert calibrated(fitted.to_dict(), [math.log(0.5)]) == fitted.of(0.5)
    assert calibrated({}, [math.log(0.5)]) == 0.5
    assert confidence_metadata(fitted.to_dict(), [math.log(0.5)]) == {
        "confidence": fitted.of(0.5),
        "raw_confidence": 0.5,
    }


@pytest.mark.parametrize("values", [{"a": 1.0}, {"a": "much", "b": 0.0}, {"a": math.nan, "b": 0.0}, [1.0], "ab"])
def test_a_damaged_calibration_names_the_fix(values):
    with pytest.raises(ConfigurationError, match="adapters calibrate NAME"):
        calibrated(values, [-0.1])


def test_calibration_error_by_hand():
    assert expected_calibration_error([], []) == 0.0
    assert expected_calibration_error([0.8] * 10, [True] * 8 + [False] * 2, bins=1) == pytest.approx(0.0)
    assert expected_calibration_error([0.0, 0.0, 1.0, 1.0], [True, True, False, False], bins=2) == 1.0
