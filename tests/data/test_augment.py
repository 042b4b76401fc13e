from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flames.data.augment import AUGMENTATIONS, augment

COUNT = 64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def halves(ranges, axis):
    """Return for many augmented images whether the half that was bright still is."""
    image = torch.full((COUNT, 1, 32, 32), -0.8)
    image.narrow(axis, 0, 16).fill_(0.8)
    moved, _ = augment(image, torch.zeros_like(image), ranges, generator())
    first = moved.narrow(axis, 0, 16).mean((1, 2, 3))
    return first > moved.narrow(axis, 16, 16).mean((1, 2, 3))


def test_ultrasound_is_never_upside_down():
    assert halves(AUGMENTATIONS["US"], 2).all()
    flipped = halves(replace(AUGMENTATIONS["US"], flip_rows=True), 2)
    assert flipped.any()
    assert not flipped.all()


@pytest.mark.parametrize(("modality", "axis"), [("US", 3), ("MR", 2), ("CT", 2)])
def test_left_and_right_are_exchanged_about_half_of_the_time(modality, axis):
    kept = int(halves(AUGMENTATIONS[modality], axis).sum())
    assert COUNT // 4 < kept < 3 * COUNT // 4


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_volumes_are_never_turned_back_to_front(modality):
    assert halves(AUGMENTATIONS[modality], 3).all()


@pytest.mark.parametrize("modality", sorted(AUGMENTATIONS))
def test_image_and_label_move_together(modality):
    still = replace(
        AUGMENTATIONS[modality],
        contrast=0, brightness=0, gamma=0, noise=0, speckle=0, bias_field=0,
    )  # fmt: skip
    label = torch.zeros(COUNT, 1, 32, 32)
    label[:, :, 4:13, 16:24] = 1
    moved, moved_label = augment(label * 2 - 1, label, still, generator())
    torch.testing.assert_close(moved, moved_label * 2 - 1, rtol=0, atol=1e-5)
    assert (moved_label - label).abs().sum((1, 2, 3)).min() > 1


@pytest.mark.parametrize("modality", sorted(AUGMENTATIONS))
def test_equal_generators_give_equal_images_and_inputs_stay(modality):
    image = torch.rand(4, 1, 32, 32, generator=generator(9)) * 2 - 1
    label = (image > 0).float()
    before = image.clone(), label.clone()
    one, other, third = (
        augment(image, label, AUGMENTATIONS[modality], generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], third[0])
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])
    assert one[0].abs().max() <= 1
    assert one[1].min() >= 0
    assert one[1].max() <= 1


def test_ct_numbers_change_less_than_ultrasounds():
    image = torch.full((COUNT, 1, 32, 32), 0.2)
    changes = {}
    for modality in ("US", "CT"):
        still = replace(AUGMENTATIONS[modality], scale=0, shift=0, rotation=0)
        moved, _ = augment(image, image, still, generator())
        changes[modality] = float((moved.mean((1, 2, 3)) - 0.2).abs().mean())
    assert changes["CT"] < 0.3 * changes["US"]
