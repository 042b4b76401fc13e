"""Volumes at a plan's spacing, and the patches that training sees of them."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest

from flames.config import PlanConfig
from flames.data import blocks as module
from flames.data.blocks import (
    Blocks,
    block_batches,
    cut,
    load_blocks,
    planned_shape,
    resample,
)
from flames.errors import FlamesError

PLAN = PlanConfig(
    spacing=(4.0, 2.0, 2.0),
    patch=(4, 8, 8),
    strides=((1, 2, 2), (2, 2, 2), (1, 1, 1)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)


@pytest.fixture
def store(write_store, tmp_path):
    """Return six volumes of four slices, 1.5 mm and 1 mm in a slice and 2 mm apart."""
    return write_store(
        tmp_path / "s", site="s", modality="MR", shape=(20, 26, 4), slice_axis=2, counts=(4, 2, 3)
    )


def test_volumes_lie_at_the_plans_spacing_slices_first(store):
    table = load_blocks(store, "train", PLAN)
    assert len(table) == 4
    case = store.cases[table.case_ids[0]]
    assert case.spacing == (1.5, 1.0, 2.0)
    assert table.images[0].shape == (2, 15, 13)  # 4·2/4, 20·1.5/2, 26·1/2
    assert table.images[0].min() >= -1
    assert table.images[0].max() <= 1
    whole = sum(int(label.astype(int).sum()) for label in table.labels) / 255
    volume = 4 * 2 * 2 / (1.5 * 1.0 * 2.0)
    expected = sum(c.tumour_voxels for c in store.split("train")) / volume
    assert whole == pytest.approx(expected, rel=0.25)


def test_derived_volumes_are_found_again_and_follow_the_plan(store, monkeypatch):
    first = load_blocks(store, "train", PLAN)
    monkeypatch.setattr(module, "case_slices", lambda *_: pytest.fail("derived twice"))
    again = load_blocks(store, "train", PLAN)
    assert all((a == b).all() for a, b in zip(first.images, again.images, strict=True))
    monkeypatch.undo()
    kept = PlanConfig.model_validate(PLAN.model_dump() | {"spacing": (0, 0, 0)})
    assert load_blocks(store, "train", kept).images[0].shape == (4, 20, 26)


def test_a_full_disk_is_told_and_leaves_nothing(store, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(FlamesError, match="No space left"):
        load_blocks(store, "train", PLAN)
    assert not list((store.path / "cache").iterdir())


def test_single_images_are_refused(site_stores):
    with pytest.raises(FlamesError, match="is a single image") as caught:
        load_blocks(site_stores["us-a"], "train", PLAN)
    assert "dimensions = 2" in caught.value.remedy


def test_an_unknown_spacing_keeps_the_grid():
    assert planned_shape((20, 256, 250), None, (3.0, 1.0, 1.0)) == (20, 256, 250)
    assert planned_shape((20, 256, 250), (6.0, 0.5, 0.5), (3.0, 1.0, 1.0)) == (40, 128, 125)
    assert planned_shape((1, 3, 3), (0.1, 0.1, 0.1), (3.0, 1.0, 1.0)) == (1, 1, 1)


@pytest.mark.parametrize("shape", [(8, 20, 30), (3, 40, 26), (12, 31, 17)])
def test_there_and_back_keeps_places(shape):
    axes = np.indices((6, 24, 24), dtype=np.float32)
    for axis in range(3):
        ramp = axes[axis] / axes[axis].max()
        back = resample(resample(ramp, shape), (6, 24, 24))
        inner = tuple(slice(n // 4, n - n // 4) for n in ramp.shape)
        assert np.abs(back - ramp)[inner].max() < 0.06


def test_a_patch_beside_the_volume_is_filled():
    volume = np.arange(2 * 3 * 3, dtype=np.float16).reshape(2, 3, 3)
    patch = cut(volume, (-1, 0, 1), (4, 3, 3), fill=-1)
    assert (patch[0] == -1).all()
    assert (patch[3] == -1).all()
    assert (patch[1:3, :, :2] == volume[:, :, 1:]).all()
    assert (patch[:, :, 2] == -1).all()


def table_of(shape, voxel) -> Blocks:
    image = np.full(shape, -0.5, np.float16)
    label = np.zeros(shape, np.uint8)
    label[voxel] = 255
    return Blocks((image,), (label,), ("a",))


@pytest.mark.parametrize("shape", [(12, 30, 30), (2, 30, 5), (4, 8, 8)])
def test_patches_show_the_tumour_when_asked(shape):
    voxel = tuple(side - 1 for side in shape)
    batches = block_batches(
        [table_of(shape, voxel)], PLAN, modality="MR", tumour_fraction=1.0, augmented=False, seed=3
    )
    for _ in range(10):
        images, labels = next(batches)
        assert images.shape == labels.shape == (2, 1, *PLAN.patch)
        assert (labels.flatten(1).max(1).values == 1).all()


def test_without_asking_patches_lie_anywhere():
    batches = block_batches(
        [table_of((12, 30, 30), (0, 0, 0))],
        PLAN,
        modality="MR",
        tumour_fraction=0.0,
        augmented=False,
        seed=3,
    )
    shown = [bool(next(batches)[1].any()) for _ in range(30)]
    assert sum(shown) < 10


@pytest.mark.parametrize("augmented", [False, True])
def test_equal_seeds_give_equal_patches(store, augmented):
    table = load_blocks(store, "train", PLAN)

    def drawn(seed):
        batches = block_batches(
            [table], PLAN, modality="MR", tumour_fraction=0.5, augmented=augmented, seed=seed
        )
        return [next(batches) for _ in range(3)]

    one, same, other = drawn(1), drawn(1), drawn(2)
    assert all(
        (a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(one, same, strict=True)
    )
    assert any((a[0] != b[0]).any() for a, b in zip(one, other, strict=True))


def test_every_case_comes_before_one_comes_again(store):
    table = load_blocks(store, "train", PLAN)
    marked = replace(
        table,
        images=tuple(np.full_like(i, n / 10) for n, i in enumerate(table.images)),
        labels=tuple(np.zeros_like(label) for label in table.labels),
    )
    batches = block_batches(
        [marked], PLAN, modality="MR", tumour_fraction=0.5, augmented=False, seed=0
    )
    seen = [round(float(image.max()), 1) for _ in range(2) for image in next(batches)[0]]
    assert sorted(seen) == [0.0, 0.1, 0.2, 0.3]
