"""What labels of DICOM say, and when they say too little or contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import changed, contours, rectangle, segmentation, series, uid
from pydicom.dataset import Dataset

from flames.data.cases import Case, read_case
from flames.data.dicom.find import find_dicom
from flames.data.sources import SourceOptions
from flames.errors import FlamesError

GTV = SourceOptions(roi="gtv.*", key=b"k" * 32)
RINGS = {"GTV_1": [(2, rectangle(2.5, 3.5, 6.5, 7.5))], "Heart": [(1, rectangle(1, 1, 4, 4))]}
"""Columns 3 to 6 and rows 4 to 7 of slice 2."""


def one_case(folder: Path) -> Case:
    (source,) = find_dicom(folder, GTV)
    return read_case(source, GTV)


def raised(height: float) -> Callable[[Dataset], None]:
    """Return what lifts the last contour of the first structure by so many millimetres."""

    def change(data: Dataset) -> None:
        ring = data.ROIContourSequence[0].ContourSequence[-1]
        ring.ContourData[2::3] = [float(z) + height for z in ring.ContourData[2::3]]

    return change


@pytest.mark.parametrize(("height", "voxels"), [(0, 36 - 9), (0.005, 36 - 9), (1, 36), (-1, 36)])
def test_only_rings_in_one_plane_make_a_hole(tmp_path: Path, height: float, voxels: int):
    """Contours that were drawn on thinner slices fall on one slice, and do not cancel out."""
    rings = {"GTV": [(2, rectangle(0.5, 0.5, 6.5, 6.5)), (2, rectangle(1.5, 1.5, 4.5, 4.5))]}
    label = contours(tmp_path / "rs.dcm", series(tmp_path / "i"), rings)
    changed(label, raised(height))
    assert one_case(tmp_path).label.sum() == voxels


def test_contours_on_thinner_slices_fill_every_slice(tmp_path: Path):
    square = rectangle(0.5, 0.5, 6.5, 6.5)
    label = contours(
        tmp_path / "rs.dcm", series(tmp_path / "i"), {"GTV": [(2, square)] * 4 + [(3, square)]}
    )

    def change(data: Dataset) -> None:
        for ring, up in zip(data.ROIContourSequence[0].ContourSequence, range(4), strict=False):
            ring.ContourData[2::3] = [float(z) + up for z in ring.ContourData[2::3]]

    changed(label, change)
    # Heights 6, 7, 8, 9 and 9 mm: slices 2, 2, 3, 3 and, again in its plane, 3.
    assert one_case(tmp_path).label.sum(axis=(0, 1)).tolist() == [0, 0, 36, 36, 0, 0]


def without_contours(data: Dataset) -> None:
    data.ROIContourSequence[0].ContourSequence = []


def never_drawn(data: Dataset) -> None:
    del data.ROIContourSequence[0]


def kind(name: str) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        data.ROIContourSequence[0].ContourSequence[-1].ContourGeometricType = name

    return change


def beside_the_image(data: Dataset) -> None:
    for ring in data.ROIContourSequence[0].ContourSequence:
        ring.ContourData[::3] = [float(x) + 500 for x in ring.ContourData[::3]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_contours, "names 'GTV_1' and has no contour of it"),
        (never_drawn, "names 'GTV_1' and has no contour of it"),
        (
            kind("OPEN_PLANAR"),
            "1 of 1 contours of structure 'GTV_1' are not closed but OPEN_PLANAR",
        ),
        (kind("POINT"), "not closed but POINT"),
        (beside_the_image, "contours of 'GTV_1' enclose no pixel"),
    ],
)
def test_a_structure_that_shows_no_tumour_is_no_healthy_case(tmp_path: Path, change, words: str):
    label = contours(tmp_path / "rs.dcm", series(tmp_path / "i"), RINGS)
    changed(label, change)
    with pytest.raises(FlamesError, match=words) as caught:
        one_case(tmp_path)
    assert "rs.dcm" in caught.value.found
    assert caught.value.remedy


def test_a_structure_that_was_not_drawn_is_passed_over_beside_one_that_was(tmp_path: Path):
    rings = {"GTV_n": [], **RINGS}
    contours(tmp_path / "rs.dcm", series(tmp_path / "i"), rings)
    assert one_case(tmp_path).label.sum() == 16


def test_two_structure_sets_of_one_series_are_refused_and_a_copy_is_not(tmp_path: Path):
    files = series(tmp_path / "i")
    old = contours(tmp_path / "old.dcm", files, RINGS)
    (tmp_path / "copy.dcm").write_bytes(old.read_bytes())
    assert one_case(tmp_path).label.sum() == 16
    contours(tmp_path / "new.dcm", files, {"GTV_1": [(3, rectangle(2.5, 3.5, 6.5, 7.5))]})
    with pytest.raises(FlamesError, match=r"copy\.dcm and .*new\.dcm are 2 structure sets"):
        one_case(tmp_path)


def test_a_structure_set_of_a_series_elsewhere_does_not_add_to_what_a_series_has(tmp_path: Path):
    """As beside the CT of a PET/CT lie the contours of its PET."""
    files = series(tmp_path / "i")
    contours(tmp_path / "rs.dcm", files, RINGS)
    other = {"GTV": [(3, rectangle(2.5, 3.5, 6.5, 7.5))]}
    label = contours(tmp_path / "pet.dcm", files, other)

    def change(data: Dataset) -> None:
        study = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        study.RTReferencedSeriesSequence[0].SeriesInstanceUID = uid("elsewhere")

    changed(label, change)
    assert one_case(tmp_path).label[..., 2].sum() == one_case(tmp_path).label.sum() == 16
    (tmp_path / "rs.dcm").unlink()
    assert one_case(tmp_path).label[..., 3].sum() == 16


def test_segmentations_of_one_series_are_joined_where_they_do_not_overlap(tmp_path: Path):
    files = series(tmp_path / "i")
    plane = np.zeros((10, 12), np.uint8)
    plane[4:8, 3:7] = 1
    segmentation(tmp_path / "a.dcm", files, {2: plane})
    segmentation(tmp_path / "b.dcm", files, {3: plane})
    assert one_case(tmp_path).label.sum(axis=(0, 1)).tolist() == [0, 0, 16, 16, 0, 0]
    segmentation(tmp_path / "b.dcm", files, {2: plane, 3: plane})
    with pytest.raises(FlamesError, match=r"b\.dcm outlines what another label .*/a\.dcm"):
        one_case(tmp_path)


def test_an_empty_plane_says_that_there_is_no_tumour_and_no_plane_says_nothing(tmp_path: Path):
    files = series(tmp_path / "i")
    empty = np.zeros((10, 12), np.uint8)
    label = segmentation(tmp_path / "seg.dcm", files, {2: empty})
    assert one_case(tmp_path).label.sum() == 0

    def rename(data: Dataset) -> None:
        data.SegmentSequence[0].SegmentNumber = 2

    changed(label, rename)
    with pytest.raises(FlamesError, match="names 'GTV' and has no plane of it"):
        one_case(tmp_path)
