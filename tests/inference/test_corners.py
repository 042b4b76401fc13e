from __future__ import annotations

import numpy as np
import pytest

from flames.inference.corners import corner_boxes, predict_corners


@pytest.mark.parametrize("share", [0.5, 0.7, 0.85, 1.0])
@pytest.mark.parametrize("sides", [(1, 1), (7, 10), (96, 61)])
def test_crops_cover_the_image_and_none_more_than_four_times(sides, share):
    seen = np.zeros(sides, int)
    for box in corner_boxes(*sides, share):
        seen[box] += 1
    assert seen.min() >= 1
    assert seen.max() == 4 or share == 0.5
    assert seen[0, 0] == seen[-1, -1] == (4 if share == 1 or sides == (1, 1) else 1)


def test_probabilities_are_the_mean_of_the_crops_and_presence_the_surest():
    slices = np.arange(2 * 10 * 10, dtype=np.float32).reshape(2, 10, 10)
    met = []

    def predict(part):
        met.append(part)
        return np.full(part.shape, len(met), np.float32), {1: 0.2, 2: 0.9, 3: 0.4, 4: 0.1}[len(met)]

    probs, presence = predict_corners(predict, slices, 0.7)
    assert presence == 0.9
    assert [part[0, 0, 0] for part in met] == [0, 3, 30, 33]
    np.testing.assert_array_equal(probs[:, 0, 0], 1)  # the first crop alone
    np.testing.assert_array_equal(probs[:, 0, 5], 1.5)  # the first and the second
    np.testing.assert_array_equal(probs[:, 5, 5], 2.5)  # all four
    np.testing.assert_array_equal(probs[:, 9, 9], 4)


def test_a_mask_of_the_middle_loses_it():
    label = np.zeros((1, 40, 40), bool)
    label[:, 13:27, 13:27] = True

    def middle(part):
        probs = np.zeros(part.shape, np.float32)
        tall, wide = part.shape[1:]
        probs[:, tall // 3 : -(tall // 3), wide // 3 : -(wide // 3)] = 1
        return probs, 1.0

    def bright(part):
        return part.astype(np.float32), 1.0

    def dice(probs):
        found = probs > 0.5
        return 2 * (found & label).sum() / (found.sum() + label.sum())

    assert dice(middle(label)[0]) > 0.9
    assert dice(predict_corners(middle, label, 0.7)[0]) < 0.5
    assert dice(predict_corners(bright, label, 0.7)[0]) == 1
