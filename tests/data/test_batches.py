from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from flames.data.batches import draw_rows, training_batches
from flames.data.slices import Slices


def table(cases: dict[str, list[int]]) -> Slices:
    """Return slices of 4·4 pixels; a case is its slices' tumour, 0 or 1. Images hold the row."""
    names = [name for name, shown in cases.items() for _ in shown]
    shown = np.array([value for values in cases.values() for value in values])
    labels = np.zeros((len(names), 4, 4), np.uint8)
    labels[shown == 1] = 255
    images = np.broadcast_to(np.arange(len(names))[:, None, None] / 100, labels.shape)
    return Slices(images.astype(np.float16), labels, tuple(names))


TABLES = [
    table({"a": [0, 1, 0, 0], "b": [1, 1], "c": [0, 0, 0]}),
    table({"d": [0], "e": [1, 0]}),
]


def drawn(count, fraction=0.67, seed=0, tables=TABLES):
    rows = draw_rows(tables, tumour_fraction=fraction, generator=np.random.default_rng(seed))
    return list(islice(rows, count))


def test_every_case_comes_once_in_a_pass():
    for start in range(0, 50, 5):
        cases = {TABLES[t].case_ids[r] for t, r in drawn(50)[start : start + 5]}
        assert cases == set("abcde")


def test_the_order_changes_between_passes():
    names = [TABLES[t].case_ids[r] for t, r in drawn(50)]
    assert len({tuple(names[start : start + 5]) for start in range(0, 50, 5)}) > 5


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_mixed_volumes_show_tumour_as_often_as_asked(fraction):
    one = [table({"a": [0, 1, 0, 0]})]
    rows = [r for _, r in drawn(2000, fraction, tables=one)]
    assert np.mean([r == 1 for r in rows]) == pytest.approx(fraction, abs=0.03)
    if fraction < 1:
        counts = np.bincount(rows, minlength=4)[[0, 2, 3]]
        assert counts.min() > 0.8 * counts.max()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_volumes_of_one_kind_are_drawn_whatever_the_fraction(fraction):
    seen = {(t, r) for t, r in drawn(500, fraction)}
    assert {(0, 4), (0, 5), (0, 6), (0, 7), (0, 8), (1, 0)} <= seen


def batches(seed=3, augmented=True, tables=TABLES):
    return training_batches(
        tables,
        modality="US",
        batch_size=3,
        tumour_fraction=0.5,
        augmented=augmented,
        seed=seed,
    )


def test_equal_seeds_give_equal_batches_whatever_else_is_drawn():
    one = list(islice(batches(), 4))
    torch.manual_seed(99)
    np.random.default_rng().random()
    other = list(islice(batches(), 4))
    for (image, label), (image_again, label_again) in zip(one, other, strict=True):
        assert torch.equal(image, image_again)
        assert torch.equal(label, label_again)
    third = list(islice(batches(seed=4), 4))
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(one, third, strict=True))


def test_a_batch_is_images_with_their_labels():
    seen = set()
    for images, labels in islice(batches(augmented=False), 40):
        assert images.shape == labels.shape == (3, 1, 4, 4)
        assert images.dtype == labels.dtype == torch.float32
        for image, label in zip(images, labels, strict=True):
            value, shown = float(image[0, 0, 0]), float(label.mean())
            rows = [
                (number, row)
                for number, one in enumerate(TABLES)
                for row in range(len(one))
                if float(one.images[row, 0, 0]) == value
                and float(one.labels[row].mean() / 255) == shown
            ]
            assert rows
            seen |= set(rows)
    assert len(seen) > 8
