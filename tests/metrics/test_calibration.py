from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flames.metrics.calibration import BINS, RAISED, calibration_error, reliability

RNG = np.random.default_rng(7)


def test_tables_of_parts_add_up():
    probs, label = RNG.random((6, 8)), RNG.integers(0, 2, (6, 8))
    whole = reliability(probs, label)
    parts = reliability(probs[:2], label[:2]) + reliability(probs[2:], label[2:])
    np.testing.assert_allclose(parts, whole)
    assert whole[:, 0].sum() == 48
    assert whole[:, 2].sum() == label.sum()


def test_parity_with_the_definition():
    probs, label = RNG.random(500) ** 3, RNG.integers(0, 2, 500)
    error = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        mine = (probs >= low) & ((probs < high) | (number == BINS - 1))
        if mine.any():
            error += mine.mean() * abs(probs[mine].mean() - label[mine].mean())
    assert calibration_error(reliability(probs, label)) == pytest.approx(error)


def test_a_model_that_tells_the_truth_has_no_error():
    probs = np.repeat([0.2, 0.6], [10, 5])
    label = np.array([1, 1] + [0] * 8 + [1, 1, 1, 0, 0])
    assert calibration_error(reliability(probs, label)) == pytest.approx(0)


def test_background_hides_what_the_raised_pixels_show():
    probs, label = np.array([0.0] * 95 + [0.9] * 5), np.zeros(100, int)
    table = reliability(probs, label)
    assert calibration_error(table) == pytest.approx(0.045)
    assert calibration_error(table, first_bin=RAISED) == pytest.approx(0.9)


def test_nothing_is_undefined():
    assert calibration_error(np.zeros((BINS, 3))) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_error_is_a_share(probs):
    table = reliability(np.array(probs), np.zeros(len(probs)))
    assert 0 <= calibration_error(table) <= 1 + 1e-9
