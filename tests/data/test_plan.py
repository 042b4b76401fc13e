"""Plans of three dimensions come from percentiles of sites alone, and fit their networks."""

from __future__ import annotations

import math

import pytest

from flames.data.fingerprint import Fingerprint
from flames.data.plan import ALIKE, LEAST, LEVELS, VOXELS, make_plan
from flames.errors import FlamesError


def site(**given) -> Fingerprint:
    known = {
        "modality": "MR",
        "organ": "limb",
        "cases": 5,
        "made_up": False,
        "dimensions": 3,
        "spacing_unit": "mm",
        "in_plane": (0.9, 1.0, 1.1),
        "between": (3.0, 5.0, 6.0),
        "brightness": (-0.5, -0.3, -0.2),
        "contrast": (0.3, 0.5, 0.6),
        "ct_window": None,
        "sides": ((18, 20, 24), (200, 256, 256), (200, 240, 256)),
    }
    return Fingerprint.model_validate(known | given)


def test_thick_slices_stay_apart_until_pixels_are_as_long():
    plan = make_plan([site()])
    assert plan.spacing == (3.0, 1.0, 1.0)  # the 5th percentile: five is thick beside one
    assert plan.kernels[0] == (1, 3, 3)
    assert plan.strides[0] == (1, 2, 2)
    assert plan.kernels[-1] == (3, 3, 3)


def test_cubes_are_treated_alike_on_every_axis():
    plan = make_plan([site(between=(1.0, 1.2, 1.3), sides=((90, 100, 110),) * 3)])
    assert plan.spacing == (1.2, 1.0, 1.0)  # not thick: the median
    assert set(plan.kernels) == {(3, 3, 3)}
    assert plan.strides[0] == (2, 2, 2)


@pytest.mark.parametrize("between", [1.0, 2.0, 4.0, 9.0])
@pytest.mark.parametrize("depth", [3, 10, 60, 300])
@pytest.mark.parametrize("side", [20, 128, 512])
def test_a_plan_fits_its_network_and_its_budget(between, depth, side):
    plan = make_plan([site(between=(between,) * 3, sides=((depth,) * 3, (side,) * 3, (side,) * 3))])
    assert 3 <= len(plan.strides) <= LEVELS
    assert math.prod(plan.patch) <= 2 * VOXELS  # rounded up to whole strides
    for axis in range(3):
        assert plan.patch[axis] % plan.factors[axis] == 0
        if plan.factors[axis] > 1:
            assert plan.patch[axis] // plan.factors[axis] >= LEAST
    lengths = list(plan.spacing)
    for stride, kernel in zip(plan.strides, plan.kernels, strict=True):
        for axis in range(3):
            near = lengths[axis] <= ALIKE * min(lengths)
            assert kernel[axis] == (3 if near else 1)
        lengths = [length * s for length, s in zip(lengths, stride, strict=True)]


def test_sites_count_by_their_cases_and_unknown_spacing_not_at_all():
    small, large = site(cases=2, in_plane=(0.5, 0.5, 0.5)), site(cases=9)
    unknown = site(cases=50, spacing_unit="px", in_plane=(1.0, 1.0, 1.0), between=(1.0, 1.0, 1.0))
    assert make_plan([small, large, unknown]).spacing == (3.0, 1.0, 1.0)
    assert make_plan([unknown]).spacing == (0.0, 0.0, 0.0)


def test_single_images_and_other_modalities_are_refused():
    flat = site(dimensions=2, between=None, sides=None)
    with pytest.raises(FlamesError, match="MR limb holds single images") as caught:
        make_plan([site(), flat])
    assert "dimensions = 2" in caught.value.remedy
    with pytest.raises(FlamesError, match="MR and CT make no common plan"):
        make_plan([site(), site(modality="CT", ct_window=(-100, 200))])
    with pytest.raises(FlamesError, match="no fingerprint"):
        make_plan([])
