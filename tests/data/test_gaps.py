"""A series of which every second slice is missing lies evenly; what it says of itself shows it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from dicom_files import changed, contours, rectangle, segmentation, series
from pydicom.dataset import Dataset

from flames.data.cases import read_case
from flames.data.check import check_store
from flames.data.dicom.find import find_dicom, read_files
from flames.data.dicom.stacks import stack_headers
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.data.store import SiteStore
from flames.errors import FlamesError


def written(
    folder: Path,
    *,
    step: float = 1.0,
    thick: float | None = 1.0,
    between: float | None = None,
    numbers: object = range(1, 100),
    every: int = 1,
    patient: str = "P1",
) -> list[Path]:
    """Write a series of 8 slices with a label, of which every so many are left."""
    array = np.random.default_rng(2).integers(0, 2000, (8, 10, 12), dtype=np.int16)
    files = series(folder, array, spacing=(0.7, 0.9, step), patient=patient)
    for file, number in zip(files, numbers, strict=False):

        def say(data: Dataset, number: object = number) -> None:
            data.InstanceNumber, data.SliceThickness = number, thick
            data.SpacingBetweenSlices = between

        changed(file, say)
    for number, file in enumerate(files):
        if number % every:
            file.unlink()
    left = files[::every]
    contours(folder / "rs.dcm", left, {"GTV": [(1, rectangle(2, 2, 8, 7))]}, patient=patient)
    return left


DOUBTED = {
    "thickness and numbers": ({"every": 2}, "2 mm .* SliceThickness says 1 mm and 4 .* 1 to 7"),
    "thickness": ({"every": 2, "numbers": [1] * 8}, "SliceThickness says 1 mm$"),
    "thickness, renumbered": ({"every": 2, "numbers": [1, 0, 2, 0, 3, 0, 4]}, "says 1 mm$"),
    "overlapping slices": ({"every": 2, "thick": 2.0}, "^[^T]*4 slices have numbers from 1 to 7$"),
    "nothing but numbers": ({"every": 3, "thick": None}, "3 slices have numbers from 1 to 7$"),
    "spacing": (
        {"every": 2, "step": 5.0, "thick": 5.0, "between": 5.0},
        "SpacingBetweenSlices says 5",
    ),
    "spacing of overlapping slices": ({"every": 2, "thick": 2.0, "between": 1.0}, "Between.* 1 mm"),
    "spacing below zero": ({"every": 2, "between": -1.0}, "SpacingBetweenSlices says 1 mm"),
    "its gap for its spacing": ({"every": 2, "step": 6.0, "thick": 5.0, "between": 1.0}, "12 mm"),
}
SOUND = {
    "whole": {},
    "numbers from 0": {"numbers": range(8)},
    "numbers of another order": {"numbers": [1, 5, 2, 6, 3, 7, 4, 8]},
    "no numbers": {"numbers": [None] * 8},
    "numbers that are none": {"numbers": ["", " ", "", "", "", "", "", ""]},
    "gaps of half a slice": {"step": 7.5, "thick": 5.0},
    "gaps as they are said": {"step": 10.0, "thick": 5.0, "between": 10.0},
    "two echoes in turn": {"step": 5.0, "between": 5.0, "numbers": range(1, 17, 2)},
    "its gap for its spacing": {"step": 6.0, "thick": 5.0, "between": 1.0},
    "overlapping slices": {"thick": 2.0},
}


def doubt(files: list[Path]) -> str | None:
    (headers,) = read_files(files)[0].values()
    return stack_headers(headers).doubt


@pytest.mark.parametrize("name", DOUBTED)
def test_missing_slices_are_told_by_what_a_series_says(tmp_path: Path, name: str):
    made, words = DOUBTED[name]
    said = doubt(written(tmp_path, **made))
    assert said is not None
    assert re.search(words, said), said


@pytest.mark.parametrize("name", SOUND)
def test_whole_series_and_gaps_that_are_stated_are_no_doubt(tmp_path: Path, name: str):
    assert doubt(written(tmp_path, **SOUND[name])) is None


def test_a_segmentation_of_a_slice_that_is_missing_says_so(tmp_path: Path):
    files = written(tmp_path)
    segmentation(tmp_path / "seg.dcm", files, {3: np.ones((10, 12), np.uint8)})
    (tmp_path / "rs.dcm").unlink()
    for file in files[1::2]:
        file.unlink()
    options = SourceOptions(key=b"k" * 32)
    (source,) = find_dicom(tmp_path, options)
    with pytest.raises(FlamesError, match="a plane that is not one of its image's") as caught:
        read_case(source, options)
    assert "slices are missing" in caught.value.remedy


def test_a_store_tells_which_series_and_its_check_repeats_it(tmp_path: Path):
    for patient in ("A", "B", "C"):
        written(tmp_path / "source" / f"of {patient}", every=1 + (patient == "B"), patient=patient)
    request = StoreRequest("dicom", "s", "CT", "limb", options=SourceOptions(key=b"k" * 32))
    added = add_store(tmp_path / "source", tmp_path / "store", request)
    said = [note for note in added.notes if "SliceThickness" in note]
    assert [note.split(":")[0] for note in said] == ["of B"]
    content = (tmp_path / "store" / "store.json").read_text(encoding="utf-8")
    assert content.count('"doubt"') == 1, "other records are as they were before there were doubts"
    assert "of B" not in content
    store = SiteStore.open(tmp_path / "store")
    (doubted,) = [case for case in store.info.cases if case.doubt]
    assert doubted.shape[2] == 4
    (finding,) = [f for f in check_store(store).findings if f.kind == "slices"]
    assert finding.cases == (doubted.case_id,)
    assert not finding.problem
    assert "2 mm apart" in finding.text
