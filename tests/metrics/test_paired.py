"""Differences between methods: by hand, against other implementations, as laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flames.metrics.paired import (
    FEWEST,
    Difference,
    paired_difference,
    paired_difference_over_sites,
)
from flames.metrics.statistics import bootstrap_interval

LAYOUT = (60, 60, 1, 2, 1, 2, 2, 2, 1)
"""Patients of the sites of a federation with a few large and many small ones."""


def cases(values: np.ndarray) -> dict[str, float]:
    return {str(number): float(value) for number, value in enumerate(values)}


def test_cases_are_paired_by_id() -> None:
    a = {"x": 0.9, "y": 0.4, "z": None, "only a": 0.0}
    b = {"y": 0.3, "x": 0.5, "z": 0.7, "only b": 1.0}
    difference = paired_difference(a, b, seed=1)
    assert difference.mean == pytest.approx((0.9 + 0.4) / 2 - (0.3 + 0.5 + 0.7) / 3)
    assert difference.n == 3


def test_a_false_alarm_less_is_a_difference() -> None:
    silent = cases(np.full(20, 0.8)) | {f"empty {n}": None for n in range(20)}
    alarmed = cases(np.full(20, 0.8)) | {f"empty {n}": 0.0 for n in range(20)}
    difference = paired_difference(silent, alarmed, seed=1)
    assert difference.mean == pytest.approx(0.4)
    assert difference.low > 0.2
    assert difference.p_value < 0.01
    nothing = paired_difference(alarmed, alarmed, seed=1)
    assert (nothing.mean, nothing.p_value) == (0.0, 1.0)


def test_repetitions_count_like_the_means_in_a_table() -> None:
    a = {"x": (0.6, 0.8), "empty": (None, 0.0)}
    b = {"x": (0.5, 0.5), "empty": (0.0, 0.0)}
    # a: (0.6 + 0.4)/2; b: 0.25 twice.
    assert paired_difference(a, b, seed=1).mean == pytest.approx(0.25)


def test_where_one_was_repeated_more_often_the_difference_is_that_of_the_means() -> None:
    a = {"x": (0.6, 0.8, 0.7), "y": (0.4, None, 0.6)}
    b = {"x": (0.5,), "y": (0.1,)}
    # a: (0.5 + 0.8 + 0.65)/3; a case that one repetition leaves undefined counts in the others.
    assert paired_difference(a, b, seed=1).mean == pytest.approx(0.65 - 0.3)
    silent, once = {"x": (0.5,), "empty": (None,)}, {"x": (0.5, 0.5), "empty": (None, 0.0)}
    # A false alarm in one of two repetitions costs half of one: (0.5 + 0.25)/2 - 0.5.
    assert paired_difference(once, silent, seed=1).mean == pytest.approx(-0.125)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_the_difference_is_that_of_the_means_beside_it(k: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (
        {str(n): tuple(None if rng.random() < 0.3 else rng.random() for _ in range(of))
         for n in range(5)} | {"whole": tuple(rng.random(of))}
        for of in (k, m)
    )  # fmt: skip
    means = [bootstrap_interval(list(side.values()), seed=1, resamples=1).mean for side in (a, b)]
    found = paired_difference(a, b, seed=1, resamples=50)
    assert found.mean == pytest.approx(means[0] - means[1])
    back = paired_difference(b, a, seed=1, resamples=50)
    assert back.mean == pytest.approx(-found.mean)


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(7)
    hardness = rng.random(40)
    difference = paired_difference(
        cases(hardness + 0.02 + rng.normal(0, 0.01, 40)), cases(hardness), seed=1
    )
    assert 0.01 < difference.low < difference.mean < difference.high < 0.03
    assert difference.p_value == 1 / 2001, "no toss is as far away"


def test_no_difference_is_no_evidence() -> None:
    same = cases(np.linspace(0, 1, 8))
    assert paired_difference(same, same, seed=1) == Difference(0.0, 0.0, 0.0, 8, 1.0)


def test_a_difference_of_rounding_is_none() -> None:
    a = cases(np.array([0.3] * 3 + [0.1] * 3 + [0.2]))
    found = paired_difference(a, dict.fromkeys(a, 0.2), seed=1)
    assert abs(found.mean) < 1e-12
    assert found.p_value == 1.0


def test_too_few_patients_have_neither_interval_nor_p_value() -> None:
    assert paired_difference({"x": 1.0}, {"x": 0.5}, seed=1) == Difference(0.5, None, None, 1, None)
    nothing = paired_difference({"x": 1.0}, {"y": 0.5}, seed=1)
    assert nothing == Difference(None, None, None, 0, None)
    a, b = cases(np.full(12, 0.6)), cases(np.full(12, 0.5))
    patients = {case: int(case) % (FEWEST - 1) for case in a}
    assert paired_difference(a, b, seed=1, groups=patients).p_value is None
    assert paired_difference(a, b, seed=1).p_value < 0.05


def test_six_of_six_is_what_six_can_show() -> None:
    found = paired_difference(cases(np.full(6, 0.6)), cases(np.zeros(6)), seed=1, resamples=20_000)
    assert found.p_value == pytest.approx(2 * 0.5**6, abs=0.005)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9))
def test_the_mean_difference_turns_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    a, b = (cases(np.array(side)) for side in zip(*pairs, strict=True))
    there = paired_difference(a, b, seed=1, resamples=50)
    back = paired_difference(b, a, seed=1, resamples=50)
    assert there.mean == pytest.approx(-back.mean, abs=1e-12)
    assert there.n == back.n == len(pairs)


def test_the_order_of_cases_and_sites_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    a = {site: cases(rng.random(9)) for site in "st"}
    b = {site: cases(rng.random(9)) for site in "st"}
    turned = [
        {site: dict(reversed(found.items())) for site, found in reversed(side.items())}
        for side in (a, b)
    ]
    assert paired_difference_over_sites(*turned, seed=2) == paired_difference_over_sites(
        a, b, seed=2
    )


def test_differences_over_sites_by_hand() -> None:
    a = {"s": {"x": 0.5, "y": 0.9}, "t": {"x": 0.7}, "only a": {"x": 1.0}, "u": {"x": None}}
    b = {"s": {"x": 0.4, "y": 0.6}, "t": {"x": 0.9}, "u": {"x": 0.0}}
    difference = paired_difference_over_sites(a, b, seed=1)
    # s: (0.1 + 0.3)/2; t: -0.2. Case x of s is not case x of t; at u one defines nothing.
    assert difference.mean == pytest.approx(0.0)
    assert difference.n == 3


def test_patients_pair_whole() -> None:
    many = {f"{patient}{n}": 0.1 for patient in range(8) for n in range(20)}
    found = paired_difference(
        many, dict.fromkeys(many, 0.0), seed=1, groups={case: case[0] for case in many}
    )
    assert found.p_value == pytest.approx(2 * 0.5**8, abs=0.006), "eight patients, not 160"


def test_p_values_agree_with_a_paired_t_test() -> None:
    delta = np.random.default_rng(11).normal(0.02, 0.08, 60)
    a = cases(delta)
    difference = paired_difference(a, dict.fromkeys(a, 0.0), seed=1, resamples=20_000)
    assert difference.p_value == pytest.approx(stats.ttest_1samp(delta, 0).pvalue, abs=0.02)


def test_the_interval_agrees_with_a_paired_t_test() -> None:
    delta = np.random.default_rng(12).normal(0.05, 0.1, 50)
    a = cases(delta)
    difference = paired_difference(a, dict.fromkeys(a, 0.0), seed=1, resamples=20_000)
    theirs = stats.ttest_1samp(delta, 0).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx(tuple(theirs), abs=0.003)


def test_interval_and_p_value_say_the_same() -> None:
    rng = np.random.default_rng(6)
    for seed in range(40):
        a, b = cases(rng.normal(0.03, 0.1, 30)), cases(np.zeros(30))
        found = paired_difference(a, b, seed=seed, resamples=400)
        assert (found.p_value > 0.05) == (found.low <= 0 <= found.high)


@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_zero_is_the_end_of_an_interval_where_one_patient_differs(shift: float) -> None:
    b = cases(np.full(8, 0.5))
    found = paired_difference(b | {"0": 0.5 + shift}, b, seed=0)
    assert found.p_value == 1.0
    assert found.mean == pytest.approx(shift / 8)
    assert found.low <= 0 <= found.high
    assert (found.low, found.high)[shift < 0] == pytest.approx(0.0, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.1, -0.1, 0.15, 0.3, None]), min_size=6, max_size=14),
    st.integers(0, 3),
)
def test_zero_lies_outside_exactly_where_p_is_at_most_5_percent(
    deltas: list[float | None], seed: int
) -> None:
    b: dict[str, float | None] = {str(n): 0.5 for n in range(len(deltas))}
    a = {str(n): None if d is None else 0.5 + d for n, d in enumerate(deltas)}
    found = paired_difference(a, b, seed=seed, resamples=200)
    if found.p_value is not None:
        above = found.low is not None and found.low > 0
        below = found.high is not None and found.high < 0
        assert (above or below) == (found.p_value <= 0.05)


def test_many_patients_are_tossed_in_parts() -> None:
    rng = np.random.default_rng(2)
    a, b = cases(rng.random(50)), cases(rng.random(50))
    at_once = paired_difference(a, b, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flames.metrics.paired._TOSSES_AT_ONCE", 50 * 300)
        assert paired_difference(a, b, seed=1) == at_once


def test_small_sites_do_not_make_chance_look_like_a_difference() -> None:
    rng = np.random.default_rng(8)
    refused = covered = 0
    for seed in range(300):
        a = {str(site): cases(rng.normal(0, 0.1, n)) for site, n in enumerate(LAYOUT)}
        b = {site: dict.fromkeys(found, 0.0) for site, found in a.items()}
        found = paired_difference_over_sites(a, b, seed=seed, resamples=300)
        refused += found.p_value < 0.05
        covered += found.low <= 0 <= found.high
    # A bootstrap within sites refuses four in ten.
    assert refused / 300 < 0.09
    assert covered / 300 > 0.91
