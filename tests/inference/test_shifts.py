from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flames.data.slices import case_slices
from flames.inference.prior import FixedMask
from flames.inference.score import ScoreOptions, TrainedModel, score_store
from flames.inference.shifts import NONE, SHIFTS, STRENGTHS, score_shifts, shifted_slices
from flames.models.precision import choose_precision

FLOAT32 = choose_precision("float32")
EVERY = [(shift, strength) for shift in SHIFTS for strength in STRENGTHS]


@pytest.fixture(params=["us-a", "mr-a"])
def case(request, site_stores):
    store = site_stores[request.param]
    return store, store.split("test")[0]


def test_without_a_shift_it_is_what_a_model_always_sees(case):
    store, record = case
    for known, found in zip(case_slices(store, record), shifted_slices(store, record, NONE, ""),
                            strict=True):  # fmt: skip
        np.testing.assert_array_equal(found, known)


@pytest.mark.parametrize(("shift", "strength"), EVERY)
def test_a_shift_repeats_bit_for_bit_and_stays_normalised(case, shift, strength):
    store, record = case
    image, label = shifted_slices(store, record, shift, strength)
    again, _ = shifted_slices(store, record, shift, strength)
    np.testing.assert_array_equal(image, again)
    assert image.shape == label.shape
    assert np.isfinite(image).all()
    assert image.min() >= -1
    assert image.max() <= 1
    if shift != "crop":
        np.testing.assert_array_equal(label, shifted_slices(store, record, NONE, "")[1])


def test_a_gain_of_a_float_image_is_undone_by_normalisation(case):
    store, record = case
    mild, strong = (shifted_slices(store, record, "gain", s)[0] for s in STRENGTHS)
    np.testing.assert_allclose(mild, strong, atol=1e-4)


def test_a_strong_shift_changes_more(case):
    store, record = case
    plain, _ = shifted_slices(store, record, NONE, "")
    for shift in ("contrast", "noise", "blur", "resolution", "bias field"):
        change = [
            np.abs(shifted_slices(store, record, shift, s)[0] - plain).mean() for s in STRENGTHS
        ]
        assert change[1] > change[0] > 0, shift


def test_a_crop_keeps_the_middle_of_image_and_label(case):
    store, record = case
    image, label = shifted_slices(store, record, "crop", "strong")
    whole = case_slices(store, record)[1]
    height, width = whole.shape[1:]
    kept = round(0.7 * height), round(0.7 * width)
    assert image.shape[1:] == kept
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    np.testing.assert_array_equal(label, whole[:, top : top + kept[0], left : left + kept[1]])


def test_integer_images_saturate(site_stores, write_store, tmp_path):
    store = site_stores["us-a"]
    record = store.split("test")[0]

    class Bytes:
        modality, info = store.modality, store.info

        def image(self, _):
            return np.clip(np.asarray(store.image(record.case_id)) * 2, 0, 255).astype(np.uint8)

        def label(self, case_id):
            return store.label(case_id)

    image, _ = shifted_slices(Bytes(), record, "gain", "strong")
    assert len(np.unique(image[image == image.max()])) == 1
    assert (image == 1).mean() > 0.02


def test_seen_from_the_corners_the_image_is_the_same_and_the_score_another(case):
    store, record = case
    for known, found in zip(
        case_slices(store, record), shifted_slices(store, record, "corners", "mild"), strict=True
    ):
        np.testing.assert_array_equal(found, known)
    middle = np.zeros((32, 32), bool)
    middle[10:22, 10:22] = True
    model = TrainedModel("prior", "prior", "all", image_size=32, network=FixedMask(middle))
    options = ScoreOptions(batch_size=4, flip=False, nsd_tolerance=2.0)
    asked = {"site": store.site, "precision": FLOAT32}
    rows = [
        row
        for row in score_shifts(model, store, **asked, options=options)
        if row["case_id"] == record.case_id
    ]
    dice = {(row["shift"], row["strength"]): row["dice"] for row in rows}
    for strength, share in zip(STRENGTHS, SHIFTS["corners"][1], strict=True):
        scored = score_store(model, store, **asked, options=replace(options, corners=share))
        (known,) = [c.row["dice"] for c in scored if c.case.case_id == record.case_id]
        assert dice["corners", strength] == known
    assert len({dice["none", ""], dice["corners", "mild"], dice["corners", "strong"]}) == 3
