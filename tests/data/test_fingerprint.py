"""What a model says of its training images, and how far another image is from them."""

from __future__ import annotations

import json

import numpy as np

from flames.data.fingerprint import Fingerprint, departures, fingerprint


def test_a_store_in_counts_and_percentiles(write_store, tmp_path):
    store = write_store(
        tmp_path / "s", site="s", modality="MR", shape=(20, 26, 4), slice_axis=2, counts=(4, 2, 3)
    )
    found = fingerprint(store)
    assert (found.cases, found.dimensions, found.organ) == (4, 3, "organ")
    assert found.in_plane == (1.25, 1.25, 1.25)  # (1.5 + 1.0) / 2
    assert found.between == (2.0, 2.0, 2.0)
    assert found.ct_window is None
    # Values around 40 of a window from 0 to 120: 2·40/120 - 1, and the bright block above it.
    assert -0.4 < found.brightness[1] < -0.1
    text = found.model_dump_json()
    assert Fingerprint.model_validate_json(text) == found
    assert not any(case.case_id in text for case in store.info.cases)
    assert set(json.loads(text)) == set(Fingerprint.model_fields)


def site(**given) -> Fingerprint:
    known = {
        "modality": "CT",
        "organ": "limb",
        "cases": 5,
        "made_up": False,
        "dimensions": 3,
        "spacing_unit": "mm",
        "in_plane": (0.8, 0.9, 1.0),
        "between": (3.0, 3.0, 5.0),
        "brightness": (-0.5, -0.3, -0.2),
        "contrast": (0.3, 0.5, 0.6),
        "ct_window": (-200.0, 300.0),
    }
    return Fingerprint(**known | given)


def far(image=None, *, spacing=(0.9, 0.9, 3.0), known=True, sites=None) -> list[str]:
    if image is None:
        image = np.full((4, 4, 4), -200.0)
        image[:2] = 200  # half at -1, half at 0.6: mean -0.2, deviation 0.8
    axis = 2 if len(spacing) == 3 else None
    return departures(
        image,
        spacing=spacing,
        spacing_known=known,
        slice_axis=axis,
        sites=[site()] if sites is None else sites,
    )


def test_an_image_like_those_in_training_says_nothing():
    assert far() == []


def test_each_measure_says_its_value_and_the_range():
    assert far(spacing=(2.0, 2.0, 3.0)) == ["it has pixels of 2 mm, in training 0.8 to 1"]
    assert far(spacing=(0.9, 0.9, 9.0)) == ["it has slices 9 mm apart, in training 3 to 5"]
    bright = np.full((4, 4, 4), 300.0)
    bright[0, 0, 0] = -200
    assert far(bright)[0].startswith("its brightness after normalisation is 0.97, in training")


def test_the_nearest_of_several_sites_counts():
    coarse = site(in_plane=(2.0, 2.0, 2.0))
    assert far(spacing=(2.0, 2.0, 3.0), sites=[site(), coarse]) == []


def test_a_value_between_the_ranges_of_two_sites_is_not_said_to_be_within_them():
    fine, coarse = site(between=(1.0, 1.0, 1.0)), site(between=(9.0, 9.0, 10.0))
    assert far(spacing=(0.9, 0.9, 4.0), sites=[coarse, fine]) == [
        "it has slices 4 mm apart, in training 1 or 9 to 10"
    ]


def test_unknown_spacing_and_unknown_training_are_not_judged():
    assert far(spacing=(9.0, 9.0, 9.0), known=False) == []
    assert far(spacing=(9.0, 9.0, 9.0), sites=[]) == []
    assert far(spacing=(9.0, 9.0, 9.0), sites=[site(spacing_unit="px")]) == []


def test_a_picture_is_no_volume():
    assert far(np.zeros((4, 4)), spacing=(1.0, 1.0)) == [
        "it is a single image, the model learned from volumes"
    ]
