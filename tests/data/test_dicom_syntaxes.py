"""Real files that pydicom brings: every transfer syntax, colour, palette, several frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import data as pydicom_data

from flames.data.dicom.find import read_files
from flames.data.dicom.headers import read_dataset
from flames.data.dicom.pixels import stack_volume
from flames.data.dicom.segments import segment_mask, segment_names
from flames.data.dicom.stacks import Stack, stack_headers

ROOT = Path(pydicom_data.__file__).parent


def real(name: str) -> Path:
    found = sorted(ROOT.rglob(name))
    if not found:
        pytest.skip(f"this pydicom brings no {name}")
    return found[0]


def stack(name: str) -> Stack:
    (headers,) = read_files([real(name)])[0].values()
    return stack_headers(headers)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_every_syntax_gives_the_same_pixels(name: str) -> None:
    expected = stack_volume(stack("MR_small.dcm"))
    assert expected.shape == (64, 64, 1)
    np.testing.assert_array_equal(stack_volume(stack(name)), expected)


def test_ct_is_in_hounsfield_units() -> None:
    small = stack("CT_small.dcm")
    volume = stack_volume(small)
    raw = read_dataset(real("CT_small.dcm")).pixel_array
    np.testing.assert_array_equal(volume[:, :, 0], raw.T.astype(int) - 1024)
    assert stack_volume(stack("693_J2KI.dcm")).min() < -900


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("examples_palette.dcm", (800, 350, 1)),
        ("examples_rgb_color.dcm", (320, 240, 1)),
        ("examples_ybr_color.dcm", (320, 240, 30)),
        ("examples_jpeg2k.dcm", (640, 480, 1)),
    ],
)
def test_ultrasound_of_every_colour_becomes_grey(name: str, shape: tuple[int, ...]) -> None:
    volume = stack_volume(stack(name))
    assert (volume.shape, volume.dtype) == (shape, np.uint8)
    assert volume.max() > 150
    assert np.median(volume) < 60


def test_a_segmentation_is_read_on_its_own_grid() -> None:
    path = real("liver_1frame.dcm")
    data = read_dataset(path)
    where = data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    shared = data.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    turn = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    from flames.data.dicom.headers import Frame

    frame = Frame(
        path=path,
        index=None,
        sop_class="",
        instance="1",
        rows=int(data.Rows),
        columns=int(data.Columns),
        position=tuple(float(v) for v in where.ImagePositionPatient),
        orientation=tuple(float(v) for v in turn),
        spacing=(float(measures.PixelSpacing[0]), float(measures.PixelSpacing[1])),
        thickness=1.0,
    )
    image = Stack("s", "CT", "p", "t", None, (frame,), (0.0, 0.0, 1.0))
    numbers = list(segment_names(data))
    mask = segment_mask(data, numbers, stack=image, path=path)
    np.testing.assert_array_equal(mask[:, :, 0], data.pixel_array.T)
    assert mask.any()
