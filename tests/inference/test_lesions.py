"""Lesions by hand: sizes, widths and places that can be counted on paper."""

from __future__ import annotations

import numpy as np
import pytest

from flames.data.scans import Grid, Scan, volume_scan
from flames.inference.lesions import diameter, find_lesions


def test_two_lesions_of_a_volume():
    mask = np.zeros((10, 10, 6), bool)
    mask[1:4, 2, 1] = True  # three voxels in a row
    mask[6:8, 6:9, 3:5] = True  # 2·3·2
    probabilities = np.where(mask, 0.9, 0.1).astype(np.float32)
    affine = np.diag([2.0, 1.0, 5.0, 1.0])
    affine[:3, 3] = (-10, 0, 100)
    scan = volume_scan(np.zeros(mask.shape), affine)
    large, small = find_lesions(mask, probabilities, scan)
    assert (large.number, large.voxels, large.size, large.size_unit) == (1, 12, 0.12, "ml")
    # between the edges: half a voxel more at each end of one axis
    assert large.diameter == pytest.approx(np.hypot(4, 2), abs=1e-3)
    assert (large.x, large.y, large.z) == (-10 + 2 * 6.5, 7.0, 100 + 5 * 3.5)
    assert large.slice == 3
    assert (small.number, small.voxels, small.diameter, small.slice) == (2, 3, 6.0, 1)
    assert (small.mean_probability, small.highest_probability) == (0.9, 0.9)


def test_the_source_that_counts_from_the_head():
    mask = np.zeros((4, 4, 6), bool)
    mask[1, 1, 1] = True
    scan = volume_scan(np.zeros(mask.shape), np.diag([1.0, 1, -2, 1]))
    (one,) = find_lesions(mask, mask.astype(np.float32), scan)
    assert one.slice == 6 - 1 - 1


def test_a_picture_has_no_millimetres():
    mask = np.zeros((8, 9), bool)
    mask[2, 3] = mask[3, 4] = True  # a shared corner connects
    scan = Scan(np.zeros((8, 9)), (1, 1), False, None, None, Grid((8, 9), None), None)
    (one,) = find_lesions(mask, mask.astype(np.float32), scan)
    assert (one.size, one.size_unit, one.diameter_unit, one.position_unit) == (2, "px", "px", "px")
    assert (one.x, one.y, one.z, one.slice) == (3.5, 2.5, None, None)


def test_nothing_found_is_no_lesion():
    scan = volume_scan(np.zeros((3, 3, 3)), np.eye(4))
    assert find_lesions(np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3)), scan) == []


@pytest.mark.parametrize(
    ("mask", "spacing", "expected"),
    [
        ([[1]], (0.5, 2.0), 2.0),
        ([[1, 1, 1, 1]], (1.0, 1.0), 4.0),
        (np.eye(3), (1.0, 1.0), np.hypot(2, 3)),
        (np.zeros((2, 2)), (1.0, 1.0), 0.0),
    ],
)
def test_diameters(mask, spacing, expected):
    assert diameter(np.array(mask), spacing) == pytest.approx(expected)


def test_a_diameter_is_in_millimetres_whatever_the_grid():
    y, x = np.mgrid[:60, :60]
    fine = np.hypot((y - 30) * 0.5, (x - 30) * 0.5) <= 10
    coarse = np.hypot((y[:30, :30] - 15) * 1.0, (x[:30, :30] - 15) * 1.0) <= 10
    assert diameter(fine, (0.5, 0.5)) == pytest.approx(20, rel=0.05)
    assert diameter(coarse, (1.0, 1.0)) == pytest.approx(20, rel=0.08)
