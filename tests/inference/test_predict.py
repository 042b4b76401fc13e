from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from flames.data.slices import Slices
from flames.inference.predict import (
    predict_case,
    predict_slices,
    predict_squares,
    validate,
    validation_rows,
)
from flames.metrics.presence import presence_score
from flames.models.precision import choose_precision

FLOAT32 = choose_precision("float32")


class Bright(nn.Module):
    """Finds what is bright: the right answer for the made-up cases."""

    def forward(self, image):
        return image * 20


class Always(nn.Module):
    """Gives the same logit everywhere."""

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, image):
        return torch.full_like(image, self.logit)


class Columns(nn.Module):
    """Finds the right half, whatever the image."""

    def forward(self, image):
        return torch.linspace(-4, 4, image.shape[-1]).expand(image.shape)


def predict(store, case, *, size=64, batch_size=4, flip=False, network=None):
    probs, _ = predict_case(
        network or Bright(),
        store,
        case,
        image_size=size,
        precision=FLOAT32,
        batch_size=batch_size,
        flip=flip,
    )
    return probs


@pytest.mark.parametrize(
    ("modality", "shape", "axis"),
    [
        ("US", (30, 70), None),
        ("US", (140, 61), None),
        ("MR", (9, 40, 26), 0),
        ("MR", (40, 9, 26), 1),
        ("CT", (26, 40, 9), 2),
    ],
)
def test_a_prediction_lies_where_the_tumour_is(write_store, tmp_path, modality, shape, axis):
    store = write_store(
        tmp_path / "s", site="s", modality=modality, shape=shape, slice_axis=axis, free=0
    )
    for case in store.split("test"):
        probs = predict(store, case)
        assert probs.shape == shape
        assert probs.dtype == np.float32
        found, label = probs > 0.5, store.label(case.case_id) > 0
        assert 2 * (found & label).sum() / (found.sum() + label.sum()) > 0.85


def test_the_size_of_a_pass_changes_nothing(write_store, tmp_path):
    store = write_store(
        tmp_path / "s", site="s", modality="MR", shape=(20, 26, 7), slice_axis=2, free=0
    )
    case = store.split("test")[0]
    np.testing.assert_array_equal(
        predict(store, case, batch_size=1), predict(store, case, batch_size=100)
    )


def test_a_look_at_the_mirror_image_is_turned_back():
    squares = np.zeros((3, 8, 16), np.float32)
    probs = predict_squares(Columns(), squares, precision=FLOAT32, batch_size=2)
    assert probs.shape == (3, 8, 16)
    assert probs[0, 0, 0] < 0.1
    other = predict_squares(Columns(), squares, precision=FLOAT32, batch_size=2, mirror=-1)
    torch.testing.assert_close(other, probs.flip(-1))
    rows = predict_squares(Columns(), squares, precision=FLOAT32, batch_size=2, mirror=-2)
    torch.testing.assert_close(rows, probs)


def test_presence_is_that_of_the_first_look():
    slices = np.zeros((1, 16, 16), np.float32)
    how = {"image_size": 16, "precision": FLOAT32, "batch_size": 2}
    once, presence = predict_slices(Columns(), slices, **how)
    twice, same = predict_slices(Columns(), slices, mirror=-1, **how)
    assert presence == same == presence_score(once, slice_axis=0) > 0.9
    np.testing.assert_allclose(twice, 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("modality", "shape", "axis", "mirrored"),
    [("US", (40, 40), None, True), ("MR", (9, 40, 40), 0, False), ("CT", (40, 40, 9), 2, False)],
)
def test_left_and_right_are_where_training_mirrors(
    write_store, tmp_path, modality, shape, axis, mirrored
):
    store = write_store(
        tmp_path / "s", site="s", modality=modality, shape=shape, slice_axis=axis, free=0
    )
    case = store.split("test")[0]
    once, twice = (predict(store, case, flip=f, network=Columns()) for f in (False, True))
    assert np.ptp(once) > 0.9
    if mirrored:
        np.testing.assert_allclose(twice, 0.5, atol=1e-6)
    else:
        np.testing.assert_array_equal(twice, once)


def test_the_network_is_left_in_evaluation_mode():
    network = nn.Sequential(nn.BatchNorm2d(1)).train()
    predict_squares(network, np.ones((1, 4, 4)), precision=FLOAT32, batch_size=1)
    assert not network.training
    assert int(network[0].num_batches_tracked) == 0


def cases(**shown):
    """Return slices of 4·4: a case is a list of slices' numbers of tumour pixels."""
    labels, names = [], []
    for name, pixels in shown.items():
        for number in pixels:
            label = np.zeros(16, np.uint8)
            label[:number] = 255
            labels.append(label.reshape(4, 4))
            names.append(name)
    labels = np.stack(labels)
    return Slices((labels / 127.5 - 1).astype(np.float16), labels, tuple(names))


def dice(network, *tables, at_most=100):
    return validate(network, tables, at_most=at_most, precision=FLOAT32, batch_size=3).dice


def test_validation_dice_by_hand():
    # all 16 pixels found: 2·4/(16 + 4) = 0.4 and 2·8/(16 + 8) = ⅔
    table = cases(a=[4], b=[8])
    assert dice(Always(9), table) == pytest.approx((0.4 + 2 / 3) / 2)
    assert dice(Bright(), table) == 1
    assert dice(Always(-9), table) == 0


def test_a_volume_is_judged_as_one():
    # 32 pixels found, 4 + 0 of them right: 8/36, not the mean of 8/20 and 0
    assert dice(Always(9), cases(a=[4, 0])) == pytest.approx(8 / 36)


def test_empty_cases_are_left_out_when_rightly_empty_and_zero_when_not():
    assert dice(Bright(), cases(a=[4], b=[0])) == 1
    assert dice(Always(9), cases(a=[4], b=[0])) == pytest.approx(0.2)
    assert dice(Always(-9), cases(b=[0], c=[0, 0])) == 1
    assert dice(Always(9), cases(b=[0])) == 0


def test_tables_count_by_their_cases():
    assert dice(Always(9), cases(a=[4], b=[8]), cases(c=[16])) == pytest.approx(
        (0.4 + 2 / 3 + 1) / 3
    )


def test_a_pixel_is_tumour_from_half_on():
    table = cases(a=[4])
    soft = Slices(table.images, np.where(table.labels > 0, 127, 0).astype(np.uint8), ("a",))
    assert dice(Bright(), soft) == 0


def test_a_small_tumour_is_among_the_rows_that_stand_for_a_split():
    table = cases(a=[0] * 40 + [9] + [0] * 59, b=[0] * 100)
    rows = validation_rows(table, 20)
    assert len(rows) == 21
    assert 40 in rows
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize(("length", "at_most"), [(100, 10), (7, 3), (5, 5), (1, 8), (101, 10)])
def test_rows_that_stand_for_a_split_are_few_and_spread(length, at_most):
    table = cases(a=[1] * length)
    rows = validation_rows(table, at_most)
    assert 1 <= len(rows) <= at_most
    assert len(set(np.diff(rows))) <= 1
    assert rows[0] <= length - 1 - rows[-1] + np.diff(rows).max(initial=1)
    if length <= at_most:
        assert rows.tolist() == list(range(length))
