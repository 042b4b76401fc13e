"""Scores of one case: by hand, against independent implementations, and as laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from monai.metrics import DiceMetric, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import distance_transform_edt

from flames.metrics.cases import CaseScore, dice, hd95, iou, nsd, score_case


def _blobs(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return two overlapping ellipsoids, one of them touching the border of the array."""
    rng = np.random.default_rng(seed)
    index = np.indices(shape).astype(float)
    masks = []
    for centre in (0.25, 0.35):
        radii = rng.uniform(0.2, 0.4, len(shape)) * shape
        middle = (centre + rng.uniform(-0.1, 0.1, len(shape))) * shape
        masks.append(
            sum(((x - m) / r) ** 2 for x, m, r in zip(index, middle, radii, strict=True)) <= 1
        )
    return masks[0], masks[1]


def _surface(mask: np.ndarray) -> np.ndarray:
    """Return tumour voxels with a face neighbour that is not tumour, by shifting."""
    padded = np.pad(mask, 1)
    inside = padded.copy()
    for axis in range(mask.ndim):
        inside &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return (padded & ~inside)[(slice(1, -1),) * mask.ndim]


def _distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    return distance_transform_edt(~_surface(b), sampling=spacing)[_surface(a)]


def _score(prediction: np.ndarray, label: np.ndarray, **options: object) -> CaseScore:
    settings = {"spacing": (1.0,) * label.ndim, "spacing_unit": "mm", "presence_score": 0.25}
    return score_case(prediction, label, **(settings | options))


SPACINGS = [((40, 33), (0.7, 1.3)), ((24, 20, 9), (0.8, 0.9, 3.0))]


@pytest.mark.parametrize(("shape", "spacing"), SPACINGS)
@pytest.mark.parametrize("seed", range(5))
def test_distances_are_those_of_a_distance_transform(
    seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    prediction, label = _blobs(seed, shape)
    there = _distances(prediction, label, spacing)
    back = _distances(label, prediction, spacing)
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert hd95(prediction, label, spacing=spacing) == pytest.approx(expected, rel=1e-6)
    # 1.75 is no distance on either grid, so rounding decides nothing.
    agree = (there <= 1.75).sum() + (back <= 1.75).sum()
    assert nsd(prediction, label, spacing=spacing, tolerance=1.75) == pytest.approx(
        agree / (len(there) + len(back))
    )


@pytest.mark.parametrize(("shape", "spacing"), SPACINGS)
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_monai(
    seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    prediction, label = _blobs(seed, shape)
    a, b = (torch.from_numpy(m)[None, None].float() for m in (prediction, label))
    score = _score(prediction, label, spacing=spacing, nsd_tolerance=1.75)
    assert score.dice == pytest.approx(float(DiceMetric()(a, b)), rel=1e-6)
    options = {"include_background": True, "spacing": spacing}
    distance = compute_hausdorff_distance(a, b, percentile=95, **options)
    assert score.hd95 == pytest.approx(float(distance), rel=1e-6)
    agreement = compute_surface_dice(a, b, class_thresholds=[1.75], **options)
    assert score.nsd == pytest.approx(float(agreement), rel=1e-6)


def test_a_volume_by_hand() -> None:
    label = np.zeros((6, 5, 4), np.uint8)
    label[1:4, 2, 1] = 1
    prediction = np.zeros((6, 5, 4), np.uint8)
    prediction[2:6, 2, 1] = 1
    score = _score(prediction, label, spacing=(2.0, 1.0, 5.0), nsd_tolerance=2.0)
    assert score == CaseScore(
        label_voxels=3,
        prediction_voxels=4,
        dice=4 / 7,
        iou=2 / 5,
        # P to L: 0, 0, 2, 4 mm, rank 2.85: 2 + 0.85·2. L to P: 2, 0, 0 gives 1.8.
        hd95=pytest.approx(3.7),
        # Within 2 mm: 3 of 4 and 3 of 3.
        nsd=6 / 7,
        distance_unit="mm",
        nsd_tolerance=2.0,
        volume_error=pytest.approx(0.01),  # 1 voxel of 10 mm³
        volume_unit="ml",
        presence_score=0.25,
        tumour_present=True,
        tumour_predicted=True,
    )


@pytest.mark.parametrize(
    ("shape", "unit", "volume_unit", "error"),
    [
        ((4, 4), "mm", "mm2", -3 * 0.25),
        ((4, 4), "px", "px", -3),
        ((4, 4, 2), "mm", "ml", -3 * 0.125e-3),
        ((4, 4, 2), "px", "voxels", -3),
    ],
)
def test_units_of_distance_and_volume(
    shape: tuple[int, ...], unit: str, volume_unit: str, error: float
) -> None:
    label = np.zeros(shape, bool)
    label.flat[:5] = True
    prediction = np.zeros(shape, bool)
    prediction.flat[:2] = True
    score = _score(prediction, label, spacing=(0.5,) * len(shape), spacing_unit=unit)
    assert (score.distance_unit, score.volume_unit) == (unit, volume_unit)
    assert score.volume_error == pytest.approx(error)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
def test_nothing_there_and_nothing_found_is_undefined(shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape, bool)
    score = _score(empty, empty)
    assert (score.dice, score.iou, score.hd95, score.nsd) == (None, None, None, None)
    assert score.volume_error == 0
    assert not score.tumour_present
    assert not score.tumour_predicted


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
def test_a_false_alarm_scores_zero(shape: tuple[int, ...]) -> None:
    prediction = np.zeros(shape, bool)
    prediction.flat[:4] = True
    score = _score(prediction, np.zeros(shape, bool), spacing_unit="px")
    assert (score.dice, score.iou, score.hd95, score.nsd) == (0, 0, None, 0)
    assert score.volume_error == 4
    assert (score.tumour_present, score.tumour_predicted) == (False, True)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
def test_a_missed_tumour_scores_zero(shape: tuple[int, ...]) -> None:
    label = np.ones(shape, bool)
    score = _score(np.zeros(shape, bool), label, spacing_unit="px", nsd_tolerance=1e9)
    assert (score.dice, score.iou, score.hd95, score.nsd) == (0, 0, None, 0)
    assert score.volume_error == -label.size
    assert (score.tumour_present, score.tumour_predicted) == (True, False)


def test_a_row_holds_truth_values_as_numbers() -> None:
    row = _score(np.zeros((3, 3), bool), np.eye(3, dtype=bool)).as_row()
    assert (row["tumour_present"], row["tumour_predicted"], row["hd95"]) == (1, 0, None)
    assert type(row["tumour_present"]) is int


@pytest.mark.parametrize(
    ("prediction", "label", "spacing"),
    [
        (np.zeros((3, 3)), np.zeros((3, 3), bool), (1, 1)),  # probabilities
        (np.zeros((3, 4), bool), np.zeros((3, 3), bool), (1, 1)),
        (np.zeros(3, bool), np.zeros(3, bool), (1,)),
        (np.zeros((3, 3), bool), np.zeros((3, 3), bool), (1, 1, 1)),
        (np.zeros((3, 3), bool), np.zeros((3, 3), bool), (1, 0)),
    ],
)
def test_what_cannot_be_scored_is_refused(
    prediction: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError):
        _score(prediction, label, spacing=spacing)


MASKS = array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@settings(deadline=None, max_examples=60)
@given(MASKS)
def test_prediction_and_label_may_change_places(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = _score(*masks), _score(*masks[::-1])
    assert (a.dice, a.iou, a.hd95, a.nsd) == (b.dice, b.iou, b.hd95, b.nsd)
    assert a.volume_error == -b.volume_error


@settings(deadline=None, max_examples=60)
@given(MASKS, st.floats(0.1, 20))
def test_distance_grows_with_spacing(masks: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    spacing = (0.5, 1.5, 4.0)[: masks[0].ndim]
    near = hd95(*masks, spacing=spacing)
    far = hd95(*masks, spacing=[factor * s for s in spacing])
    assert far == (None if near is None else pytest.approx(factor * near, rel=1e-5))


@settings(deadline=None, max_examples=60)
@given(MASKS, st.integers(0, 3), st.integers(0, 3))
def test_empty_surroundings_change_nothing(
    masks: tuple[np.ndarray, np.ndarray], before: int, after: int
) -> None:
    moved = (np.pad(m, (before, after)) for m in masks)
    assert _score(*moved) == _score(*masks)


@settings(deadline=None, max_examples=60)
@given(MASKS)
def test_overlap_keeps_its_bounds(masks: tuple[np.ndarray, np.ndarray]) -> None:
    d, j = dice(*masks), iou(*masks)
    if d is not None and j is not None:
        assert 0 <= j <= d <= 1
        assert j == pytest.approx(d / (2 - d))
        assert (d == 1) == np.array_equal(*masks)


@settings(deadline=None, max_examples=30)
@given(MASKS)
def test_equal_masks_are_perfect(masks: tuple[np.ndarray, np.ndarray]) -> None:
    mask = masks[0]
    score = _score(mask, mask, nsd_tolerance=0.0)
    expected = (1, 1, 0, 1) if mask.any() else (None, None, None, None)
    assert (score.dice, score.iou, score.hd95, score.nsd) == expected
