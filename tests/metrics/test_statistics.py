"""Intervals, differences and corrections: by hand, against other implementations, as laws."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flames.metrics.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    mean_over_sites,
    presence_auc,
    sensitivity,
    specificity,
)

SCORES = st.lists(st.floats(-50, 50, allow_subnormal=False), min_size=1, max_size=12)


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys, flames.metrics.tables, flames.metrics.statistics, flames.metrics.presence;"
        "sys.exit(bool({'torch', 'monai', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_cases_by_hand() -> None:
    # Means of a draw: 0, 0.5 and 1 with chances 1/4, 1/2, 1/4.
    assert bootstrap_interval([0.0, 1.0], seed=4) == Interval(0.5, 0.0, 1.0, 2)
    # Half the mass lies in the middle, so a 40 % interval is a point.
    assert bootstrap_interval([0.0, 1.0], seed=4, confidence=0.4) == Interval(0.5, 0.5, 0.5, 2)


def test_undefined_values_are_left_out_and_not_counted() -> None:
    with_holes = bootstrap_interval([None, 0.25, None, 0.5, 0.9], seed=2)
    assert with_holes == bootstrap_interval([0.25, 0.5, 0.9], seed=2)
    assert with_holes.n == 3
    assert bootstrap_interval([None, None], seed=2) == Interval(None, None, None, 0)
    assert bootstrap_interval([], seed=2) == Interval(None, None, None, 0)


def test_one_case_has_no_width() -> None:
    assert bootstrap_interval([None, 0.3], seed=2) == Interval(0.3, 0.3, 0.3, 1)


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).beta(4, 2, 60)
    ours = bootstrap_interval(values, seed=1, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for seed in range(300):
        interval = bootstrap_interval(rng.normal(0.6, 0.1, 40), seed=seed, resamples=400)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 0.6 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_patients_are_drawn_whole() -> None:
    # One patient with three cases of 1, one with one case of 0: draws are 0, 3/4 or 1.
    values, patients = [1.0, 1.0, 1.0, 0.0], ["p", "p", "p", "q"]
    assert bootstrap_interval(values, seed=3, groups=patients) == Interval(0.75, 0.0, 1.0, 4)
    middle = bootstrap_interval(values, seed=3, groups=patients, confidence=0.4)
    assert (middle.low, middle.high) == (0.75, 0.75)
    assert bootstrap_interval(values, seed=3, groups=["p"] * 4) == Interval(0.75, 0.75, 0.75, 4)


def test_repeated_cases_of_a_patient_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(1).random(15), 6)
    by_case = bootstrap_interval(values, seed=1)
    by_patient = bootstrap_interval(values, seed=1, groups=list(np.repeat(range(15), 6)))
    width = [i.high - i.low for i in (by_case, by_patient)]
    # The square root of six, within the noise of the draw.
    assert 2.0 < width[1] / width[0] < 2.9


def test_many_cases_are_drawn_in_parts() -> None:
    values = np.random.default_rng(2).random(50)
    at_once = bootstrap_interval(values, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flames.metrics.statistics._INDICES_AT_ONCE", 50 * 300)
        assert bootstrap_interval(values, seed=1) == at_once


def test_rounding_leaves_the_mean_inside() -> None:
    # Equal values differ in the last bit between the mean, added exactly, and the draws.
    for n in range(2, 40):
        interval = bootstrap_interval([0.1] * n, seed=1, resamples=5)
        assert interval.low <= interval.mean <= interval.high


@settings(deadline=None, max_examples=60)
@given(SCORES, st.integers(0, 9), st.randoms())
def test_the_order_of_cases_changes_nothing(values: list[float], seed: int, random) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    ours = bootstrap_interval(values, seed=seed, resamples=50)
    assert bootstrap_interval(shuffled, seed=seed, resamples=50) == ours


@settings(deadline=None, max_examples=60)
@given(SCORES, st.integers(0, 9))
def test_the_interval_contains_the_mean(values: list[float], seed: int) -> None:
    interval = bootstrap_interval(values, seed=seed, resamples=200)
    assert interval.low <= interval.mean <= interval.high
    assert min(values) - 1e-9 <= interval.low
    assert interval.high <= max(values) + 1e-9
    assert interval.mean == pytest.approx(np.mean(values), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(SCORES, st.floats(-5, 5), st.integers(0, 9))
def test_a_shift_moves_the_interval_along(values: list[float], shift: float, seed: int) -> None:
    before = bootstrap_interval(values, seed=seed, resamples=50)
    after = bootstrap_interval([v + shift for v in values], seed=seed, resamples=50)
    # Values that a shift makes equal sort alike, so the draw is the same.
    moved = (before.mean + shift, before.low + shift, before.high + shift)
    assert (after.mean, after.low, after.high) == pytest.approx(moved, abs=1e-9)


def test_every_site_counts_the_same() -> None:
    sites = {"large": [0.9] * 50, "small": [0.2, 0.4], "none": [None], "empty": []}
    interval = mean_over_sites(sites, seed=1)
    assert interval.mean == pytest.approx((0.9 + 0.3) / 2)
    # Only the small site varies: its mean is 0.2, 0.3 or 0.4.
    assert (interval.low, interval.high) == pytest.approx((0.55, 0.65))
    assert interval.n == 52


def test_a_mean_over_sites_has_no_interval_where_one_has_a_single_patient() -> None:
    lone = {"many": [0.2, 0.4, 0.6, 0.8], "one": [0.5]}
    assert mean_over_sites(lone, seed=1) == Interval(0.5, None, None, 5)
    patients = {"many": list("abcd"), "two": ["p", "p"]}
    found = mean_over_sites({"many": lone["many"], "two": [0.4, 0.6]}, seed=1,
                            groups_by_site=patients)  # fmt: skip
    assert found == Interval(0.5, None, None, 6)


def test_sites_are_drawn_apart() -> None:
    # Two sites that vary alike: half the variance of one.
    values = list(np.random.default_rng(1).random(40))
    one = mean_over_sites({"a": values}, seed=1)
    two = mean_over_sites({"a": values, "b": values}, seed=1)
    assert (two.high - two.low) / (one.high - one.low) == pytest.approx(np.sqrt(0.5), rel=0.12)


def test_the_order_of_sites_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    sites = {"b": list(rng.random(7)), "a": list(rng.random(12))}
    turned = dict(reversed(sites.items()))
    assert mean_over_sites(sites, seed=3) == mean_over_sites(turned, seed=3)


def test_repetitions_are_averaged_after_their_cases() -> None:
    # Without tumour: false alarm (0), silence (undefined). By repetition 0.8 and (0.8 + 0)/2.
    values = [(0.8, 0.8), (None, 0.0)]
    assert bootstrap_interval(values, seed=1).mean == pytest.approx(0.6)
    assert bootstrap_interval(values, seed=1).n == 2
    assert bootstrap_interval([(None, 0.5), (None, 0.7)], seed=1).mean == pytest.approx(0.6)


def test_more_repetitions_do_not_lower_the_mean() -> None:
    rng = np.random.default_rng(3)
    alarms = rng.random((40, 10)) < 0.3
    means = []
    for number in (1, 10):
        empty = [tuple(0.0 if alarm else None for alarm in row[:number]) for row in alarms]
        means.append(bootstrap_interval([*[(0.8,) * number] * 40, *empty], seed=1).mean)
    # 0.8·40/(40 + 12) in the mean; averaged by case first, ten repetitions would give 0.41.
    assert means == pytest.approx([0.615, 0.615], abs=0.03)


def test_all_repetitions_draw_the_same_patients() -> None:
    values = np.random.default_rng(2).random(30)
    once = bootstrap_interval(list(values), seed=1)
    thrice = bootstrap_interval([(v, v, v) for v in values], seed=1)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_repetitions_must_be_as_many_for_every_case() -> None:
    with pytest.raises(ValueError, match="argument"):
        bootstrap_interval([(0.1, 0.2), (0.3,)], seed=1, groups=["p", "p"])


def test_the_seed_decides() -> None:
    values = list(np.random.default_rng(1).random(30))
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_holm_by_hand() -> None:
    # Sorted: 0.005·5, 0.011·4, 0.02·3, 0.04·2, 0.13·1.
    p_values = [0.02, 0.13, 0.005, 0.04, 0.011]
    assert holm(p_values) == pytest.approx([0.06, 0.13, 0.025, 0.08, 0.044])
    assert holm([0.6, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.5, 0.9, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_raw_and_bonferroni(p_values: list[float]) -> None:
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1.0, len(p_values) * raw + 1e-12)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(30) < 0.6
    scores = rng.integers(0, 6, 30) / 6
    pairs = scores[present][:, None] - scores[~present][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert presence_auc(list(present), list(scores)) == pytest.approx(expected)


@pytest.mark.parametrize("present", [[1, 1], [0, 0], []])
def test_auc_needs_both_classes(present: list[int]) -> None:
    assert presence_auc(present, [0.2, 0.9][: len(present)]) is None


def test_sensitivity_and_specificity_by_hand() -> None:
    present = [1, 1, 1, 1, 0, 0, 0]
    predicted = [1, 1, 1, 0, 1, 0, 0]
    assert sensitivity(present, predicted) == 3 / 4
    assert specificity(present, predicted) == 2 / 3
    assert sensitivity([0], [1]) is None
    assert specificity([1], [1]) is None
