"""The presence score of a case."""

from __future__ import annotations

import numpy as np
import pytest

from flames.metrics.presence import (
    PRESENCE_GRID,
    PresenceRule,
    best_threshold,
    operating_curve,
    presence_score,
)


def test_the_highest_half_per_cent_of_an_image() -> None:
    image = np.full((100, 80), 0.1)  # 0.5 % of 8000 pixels: 40
    image.flat[5:35] = 0.9
    assert presence_score(image) == pytest.approx((30 * 0.9 + 10 * 0.1) / 40)


def test_a_fraction_of_a_pixel_counts_as_one() -> None:
    image = np.zeros((100, 81))  # 40.5 pixels become 41
    image.flat[:41] = 0.5
    image.flat[0] = 0.91
    assert presence_score(image) == pytest.approx((40 * 0.5 + 0.91) / 41)


def test_at_least_sixteen_pixels() -> None:
    image = np.zeros((10, 9))
    image[0, :2] = 1, 0.6
    assert presence_score(image) == pytest.approx(1.6 / 16)


def test_an_image_of_fewer_pixels_counts_whole() -> None:
    assert presence_score(np.array([[0.2, 0.7, 0.3]])) == pytest.approx(0.4)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_a_volume_has_the_score_of_its_highest_slice(axis: int) -> None:
    rng = np.random.default_rng(3)
    volume = rng.random((20, 31, 12), dtype=np.float32)
    slices = [presence_score(volume.take(i, axis)) for i in range(volume.shape[axis])]
    assert presence_score(volume, slice_axis=axis) == pytest.approx(max(slices))


def test_the_last_axis_is_across_slices_unless_said_otherwise() -> None:
    volume = np.zeros((6, 8, 3))
    volume[:, :, 1] = 0.75
    volume[0, 0, 2] = 1.0
    assert presence_score(volume) == 0.75
    assert presence_score(volume, slice_axis=None) == 0.75
    assert presence_score(volume, slice_axis=0) < 0.75


@pytest.mark.parametrize("shape", [(0, 4), (4,), (1, 1, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        presence_score(np.zeros(shape))


def test_silence_costs_what_is_lost_and_gains_what_was_a_false_alarm() -> None:
    curve = operating_curve([0.9, 0.2, 0.0], [True, True, False], [0.9, 0.3, 0.6])
    at = dict(zip(PRESENCE_GRID, curve, strict=True))
    assert at[0.0] == [1.1, 3, 2, 0, 1, 0]
    assert at[0.3] == [1.1, 3, 2, 0, 1, 0]  # a score at the threshold is kept
    assert at[0.35] == [0.9, 3, 2, 1, 1, 0]  # the weak tumour becomes a miss
    assert at[0.65] == [
        0.9,
        2,
        2,
        1,
        1,
        1,
    ]  # the false alarm becomes silence, and is no longer counted
    assert at[0.92] == [0.0, 2, 2, 2, 1, 1]


def cases(tumours: int, weak: int) -> tuple[list[float], list[bool], list[float]]:
    """Return cases of which ``weak`` tumours and all 10 free ones score below 0.35."""
    dice = [0.8] * (tumours - weak) + [0.1] * weak + [0.0] * 10
    scores = [0.9] * (tumours - weak) + [0.3] * (weak + 10)
    return dice, [True] * tumours + [False] * 10, scores


def test_a_few_missed_tumours_may_pay_for_many_false_alarms() -> None:
    assert best_threshold([operating_curve(*cases(20, 2))]) == 0.35  # 14.4/20 against 14.6/30


def test_more_than_a_tenth_of_the_tumours_is_never_silenced() -> None:
    assert best_threshold([operating_curve(*cases(20, 3))]) == 0.0


def test_an_undefined_case_counts_nowhere() -> None:
    curve = operating_curve([float("nan")], [False], [0.5])
    assert [row[:2] for row in curve] == [[0.0, 0]] * len(PRESENCE_GRID)


def test_clients_decide_together() -> None:
    quiet = operating_curve([0.8, 0.0], [True, False], [0.9, 0.3])
    loud = operating_curve([0.8] * 9, [True] * 9, [0.2] * 9)
    assert best_threshold([quiet]) == 0.35
    assert best_threshold([quiet, loud]) == 0.0
    assert best_threshold([]) == 0.0


def test_a_gain_too_small_silences_nothing() -> None:
    dice, scores = [0.001, 0.0], [0.9, 0.3]
    assert best_threshold([operating_curve(dice, [True, False], scores)]) == 0.0


def drawn(number: int, seed: int) -> tuple[list[float], list[bool], list[float]]:
    """Return cases whose probability of tumour is the square of their score."""
    rng = np.random.default_rng(seed)
    scores = rng.random(number)
    tumour = rng.random(number) < scores**2
    return [0.5] * number, tumour.tolist(), scores.tolist()


def test_calibrated_probabilities_are_the_shares_of_tumour() -> None:
    rule = PresenceRule.of([operating_curve(*drawn(4000, 0)), operating_curve(*drawn(4000, 1))])
    for score in (0.2, 0.5, 0.7, 0.9):
        assert rule.probability(score) == pytest.approx(score**2, abs=0.05)
    probabilities = [p for _, p in rule.calibration]
    assert probabilities == sorted(probabilities)
    assert probabilities[0] > 0
    assert probabilities[-1] < 1


def test_clients_calibrate_as_if_their_cases_lay_together() -> None:
    one, other = drawn(40, 2), drawn(30, 3)
    apart = PresenceRule.of([operating_curve(*one), operating_curve(*other)])
    together = PresenceRule.of(
        [operating_curve(*([*a, *b] for a, b in zip(one, other, strict=True)))]
    )
    assert apart == together


@pytest.mark.parametrize("free", [0, 4])
def test_too_few_cases_of_a_kind_calibrate_nothing(free: int) -> None:
    tumour = [True] * 30 + [False] * free
    curve = operating_curve([0.5] * len(tumour), tumour, [0.9] * len(tumour))
    assert PresenceRule.of([curve]).probability(0.9) is None
    assert PresenceRule.of([]).probability(0.9) is None


def test_a_single_score_gives_its_share() -> None:
    tumour = [True] * 15 + [False] * 5
    rule = PresenceRule.of([operating_curve([0.5] * 20, tumour, [0.93] * 20)])
    assert {rule.probability(score) for score in (0.1, 0.93, 1.0)} == {0.75}
