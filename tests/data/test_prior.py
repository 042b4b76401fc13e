from __future__ import annotations

import numpy as np
import pytest

from flames.data.prior import mask_dice, spatial_prior, tumour_share


class Labelled:
    """A store of labels alone: an image that is looked at is an error."""

    def __init__(self, labels, slice_axis=None):
        self.labels = {f"c{n}": label for n, label in enumerate(labels)}
        self.slice_axis = slice_axis

    def split(self, side):
        assert side == "train"
        return [Case(name, self.slice_axis) for name in self.labels]

    def label(self, case_id):
        return self.labels[case_id]


class Case:
    def __init__(self, case_id, slice_axis):
        self.case_id, self.slice_axis = case_id, slice_axis


def square(rows, columns, size=16):
    label = np.zeros((size, size), np.uint8)
    label[rows, columns] = 1
    return label


def test_one_place_is_found_as_it_is():
    mask = square(slice(4, 8), slice(2, 6))
    assert np.array_equal(spatial_prior([Labelled([mask, mask])], 16), mask > 0)


def test_it_takes_as_many_pixels_as_give_the_highest_mean_dice():
    large, small = square(slice(0, 8), slice(0, 8)), square(slice(0, 4), slice(0, 4))
    # Of both: the small one has 1 and 2·16/80 = 0.4, the large one 1 and 0.4; in between less.
    found = spatial_prior([Labelled([large, small, small])], 16)
    assert np.array_equal(found, small > 0)
    found = spatial_prior([Labelled([large, large, small])], 16)
    assert np.array_equal(found, large > 0)


def test_every_case_counts_alike_whatever_its_slices():
    volume = np.stack([square(slice(0, 4), slice(0, 4))] * 8, axis=2)
    picture = square(slice(10, 14), slice(10, 14))
    flat, deep = Labelled([picture, picture]), Labelled([volume], slice_axis=2)
    assert np.array_equal(spatial_prior([flat, deep], 16), picture > 0)
    assert np.array_equal(spatial_prior([deep], 16), volume[..., 0] > 0)


def test_without_any_tumour_it_is_empty():
    assert not spatial_prior([Labelled([square(slice(0), slice(0))])], 16).any()


def test_a_wide_image_is_fitted_as_a_network_sees_it():
    wide = np.zeros((10, 20), np.uint8)
    wide[5:, :10] = 1
    found = spatial_prior([Labelled([wide])], 20)
    assert np.array_equal(found, square(slice(10, 15), slice(0, 10), 20) > 0)


def test_its_dice_is_that_of_every_slice():
    one, none = square(slice(0, 4), slice(0, 4)), square(slice(0), slice(0))
    mask = square(slice(0, 4), slice(0, 8)) > 0
    assert mask_dice(mask, tumour_share(one, None, 16)) == pytest.approx(2 * 16 / 48)
    # Of a volume every slice gets the mask: 2·16 / (2·32 + 16).
    volume = np.stack([one, none], axis=2)
    assert mask_dice(mask, tumour_share(volume, 2, 16)) == pytest.approx(32 / 80)
