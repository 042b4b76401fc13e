from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from flames.data import slices as module
from flames.data.slices import case_slices, fit, fitted_size, load_slices, unfit
from flames.errors import FlamesError


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (16, 24), (32, 32), (90, 31)])
def test_fit_then_unfit_puts_everything_back(shape):
    rows, columns = np.indices(shape, dtype=np.float32)
    for ramp in (rows / shape[0], columns / shape[1]):
        square = fit(ramp[None], 32, fill=-1.0)
        assert square.shape == (1, 32, 32)
        back = unfit(torch.from_numpy(square), shape)[0].numpy()
        assert back.shape == shape
        margin = tuple(slice(n // 6, n - n // 6) for n in shape)
        # a shift by one pixel of the square would be an error of 1/32
        assert np.abs(back - ramp)[margin].max() < 0.015


def test_the_image_lies_in_the_middle_and_the_rest_is_fill():
    square = fit(np.ones((1, 16, 32), np.float32), 32, fill=-1.0)[0]
    assert fitted_size((16, 32), 32) == (16, 32, 8, 0)
    assert (square[8:24] == 1).all()
    assert (square[:8] == -1).all()
    assert (square[24:] == -1).all()


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (3, 400)])
def test_a_thin_image_keeps_a_pixel(shape):
    square = fit(np.ones((1, *shape), np.float32), 32, fill=0.0)
    assert square.sum() > 31
    assert unfit(torch.from_numpy(square), shape).shape == (1, *shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_is_cut_across_its_slice_axis(write_store, tmp_path, axis):
    store = write_store(
        tmp_path / "s", site="s", modality="CT", shape=(5, 6, 7), slice_axis=axis, free=0
    )
    case = store.split("train")[0]
    images, labels = case_slices(store, case)
    number = (5, 6, 7)[axis]
    assert len(images) == len(labels) == number
    volume = store.label(case.case_id)
    for index in range(number):
        np.testing.assert_array_equal(labels[index], volume.take(index, axis))
    table = load_slices(store, "train", 32)
    assert len(table) == number * 4
    assert list(table.rows_by_case) == [c.case_id for c in store.split("train")]


def test_slices_hold_the_normalised_image_and_shares_of_tumour(write_store, tmp_path):
    store = write_store(tmp_path / "s", site="s", shape=(32, 32))
    table = load_slices(store, "train", 32)
    for row, case_id in enumerate(table.case_ids):
        known = np.clip(np.asarray(store.image(case_id)) / 60 - 1, -1, 1)
        np.testing.assert_allclose(table.images[row], known, atol=2e-3)
        np.testing.assert_array_equal(table.labels[row], store.label(case_id) * 255)
    assert table.images.dtype == np.float16
    assert not table.images.flags.writeable


def test_the_second_call_reads_the_cache(write_store, tmp_path, monkeypatch):
    store = write_store(tmp_path / "s", site="s")
    first = load_slices(store, "train", 32)
    monkeypatch.setattr(module, "case_slices", None)
    second = load_slices(store, "train", 32)
    np.testing.assert_array_equal(first.images, second.images)
    assert first.case_ids == second.case_ids
    with pytest.raises(TypeError):
        load_slices(store, "train", 48)
    with pytest.raises(TypeError):
        load_slices(store, "val", 32)


def test_a_tiny_tumour_keeps_its_share(write_store, tmp_path):
    def one_pixel(image, label):
        label[:] = 0
        label[131, 77] = 1

    store = write_store(
        tmp_path / "s", site="s", shape=(256, 256), counts=(1, 1, 1), change=one_pixel
    )
    label = load_slices(store, "train", 32).labels[0].astype(int)
    # one of 8·8 pixels is 255/64 = 4.0
    assert 2 <= label.sum() <= 6
    row, column = np.unravel_index(label.argmax(), label.shape)
    assert (row, column) == (131 // 8, 77 // 8)


def test_which_slices_show_tumour(write_store, tmp_path):
    store = write_store(
        tmp_path / "s", site="s", modality="MR", shape=(32, 32, 6), slice_axis=2, free=0
    )
    shown = load_slices(store, "val", 32).with_tumour
    assert shown.tolist() == [False, True, True, False, False, False] * 2


def test_an_image_that_is_not_finite_is_refused(write_store, tmp_path):
    def spoil(image, label):
        image[3, 4] = np.nan

    store = write_store(tmp_path / "s", site="s", change=spoil)
    for _ in range(2):
        with pytest.raises(FlamesError, match=r"s-00: the image holds NaN"):
            load_slices(store, "train", 32)


def test_an_empty_side_is_refused(write_store, tmp_path):
    store = write_store(tmp_path / "s", site="s", counts=(3, 0, 2))
    with pytest.raises(FlamesError, match="has no val case"):
        load_slices(store, "val", 32)


def test_a_full_disk_is_told_and_leaves_no_half_cache(write_store, tmp_path, monkeypatch):
    store = write_store(tmp_path / "s", site="s")

    def full(*given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_text", full)
    with pytest.raises(FlamesError, match="No space left on device"):
        load_slices(store, "train", 32)
    assert list((store.path / "cache").iterdir()) == []
    monkeypatch.undo()
    assert len(load_slices(store, "train", 32)) == 4
