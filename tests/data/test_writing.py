"""Writing burned into pictures is found and painted over; speckle and tumours are left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import STRAIGHT, contours, rectangle, series
from PIL import Image, ImageDraw
from scipy import ndimage
from source_folders import save, save_nifti, square

from flames.data.cases import read_case
from flames.data.check import check_store
from flames.data.formats import find_sources
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.data.writing import (
    STEP,
    STROKE,
    _of_range,
    _strokes,
    blank_writing,
    find_writing,
    shows_writing,
)
from flames.errors import FlamesError


def scan(seed: int = 0, text: str = "", at: tuple[int, int] = (8, 6)) -> np.ndarray:
    """Return a fan of speckle on black, with a line of writing above it."""
    rng = np.random.default_rng(seed)
    speckle = rng.rayleigh(30, (200, 240)).clip(0, 255)
    y, x = np.mgrid[:200, :240]
    waves = rng.uniform(0.02, 0.2, 4)
    speckle *= 1 + 0.7 * np.sin(waves[0] * x + 9 * waves[2]) * np.cos(waves[1] * y + 9 * waves[3])
    speckle = speckle.clip(0, 255)
    fan = (y > 40) & (np.abs(x - 120) < 20 + 0.5 * (y - 40))
    picture = Image.fromarray(np.where(fan, speckle, 0).astype(np.uint8))
    if text:
        ImageDraw.Draw(picture).text(at, text, fill=230, font_size=14)
    return np.asarray(picture)


@pytest.mark.parametrize("text", ["MUSTER MARIA", "12.03.1954", "ID 774-21 / L"])
def test_a_line_of_writing_is_found_where_it_stands(text: str):
    picture = scan(1, text)
    (box, *_) = boxes = find_writing(picture)
    written = scan(1, text).astype(int) - scan(1).astype(int) > 60
    inside = np.zeros(written.shape, bool)
    for box in boxes:
        inside[box.top : box.bottom, box.left : box.right] = True
    assert written[inside].sum() >= 0.95 * written.sum()
    assert box.bottom < 45
    blank = blank_writing(picture)
    assert find_writing(blank) == []
    np.testing.assert_array_equal(blank[45:], picture[45:])


def test_lines_below_each_other_all_go():
    picture = scan(2, "DOE JOHN\n630P630\n78F78\n44CG43")
    left = blank_writing(picture)[:, :60].astype(int) - scan(2)[:, :60].astype(int)
    assert (np.abs(left) > 60).sum() < 20


@pytest.mark.parametrize("seed", range(8))
def test_speckle_is_no_writing(seed: int):
    assert find_writing(scan(seed)) == []
    rng = np.random.default_rng(seed)
    assert find_writing(rng.integers(0, 256, (120, 160), dtype=np.uint8)) == []
    assert find_writing(np.full((50, 50), 7.0)) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (8, 9), (57, 64)])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_strokes_are_those_of_the_top_hat(shape: tuple[int, int], kind: type):
    picture = np.random.default_rng(0).integers(0, 100, shape).astype(kind)
    picture.flat[0] = 0
    picture.flat[-1] = 100
    tops = ndimage.white_tophat(picture.astype(np.float32) / 100, size=(STROKE, STROKE))
    values = _of_range(picture)
    found = np.zeros(shape, bool) if values is None else _strokes(values)
    np.testing.assert_array_equal(found, tops > STEP)


def store(tmp_path: Path, name: str, **options):
    source = tmp_path / "source"
    for number in range(6):
        save(source / "benign" / f"b ({number}).png", scan(number, "MUSTER" if number < 2 else ""))
        save(source / "benign" / f"b ({number})_mask.png", square((200, 240), 80, 30))
    request = StoreRequest("busi", "s", "US", "breast", options=SourceOptions(**options))
    return add_store(source, tmp_path / name, request).store


def test_the_check_of_a_store_warns_and_blanking_helps(tmp_path: Path):
    found = check_store(store(tmp_path, "a"))
    (writing,) = [f for f in found.findings if f.kind == "writing"]
    assert set(writing.cases) == {"b-0", "b-1"}
    assert "--blank-text" in writing.text
    assert found.sound
    blanked = store(tmp_path, "b", blank_text=True)
    assert not [f for f in check_store(blanked).findings if f.kind == "writing"]
    assert blanked.info.settings["blank_text"] is True


def test_the_check_looks_at_every_page(tmp_path: Path):
    for number in range(4):
        at = {1: 3, 2: 0}.get(number)
        pages = [
            Image.fromarray(scan(9 * number + k, "MUSTER" if k == at else "")) for k in range(4)
        ]
        masks = [Image.fromarray(square((200, 240), 80, 30 * (k == 1))) for k in range(4)]
        for name, (first, *rest) in {f"i{number}": pages, f"m{number}": masks}.items():
            first.save(tmp_path / f"{name}.tif", save_all=True, append_images=rest)
    options = SourceOptions(images="i*.tif", masks="m*.tif")
    request = StoreRequest("pairs", "s", "US", "breast", options=options)
    made = add_store(tmp_path, tmp_path / "store", request).store
    found = [f.cases for f in check_store(made).findings if f.kind == "writing"]
    assert found == [("1", "2")]


ORIENTATIONS = {
    "axial": STRAIGHT,
    "sagittal": (0.0, 1, 0, 0, 0, -1),
    "on its side": (0.0, 0, 1, 1, 0, 0),
}


def placed(folder: Path, modality: str, orientation: tuple[float, ...]) -> None:
    """Write three patients, each with two slices that say a name, in the place of the patient."""
    for number in range(3):
        patient = f"P{number}"
        array = np.stack([scan(2 * number + k, "MUSTER MARIA") for k in range(2)])
        images = series(folder / patient / "i", array, patient=patient, modality=modality,
                        orientation=orientation, spacing=(0.5, 0.5, 4.0))  # fmt: skip
        rings = {"GTV": [(1, rectangle(90, 90, 120, 120))]}
        contours(folder / patient / "rs.dcm", images, rings, patient=patient)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_writing_goes_from_ultrasound_with_a_place_in_the_patient(tmp_path: Path, name: str):
    placed(tmp_path / "source", "US", ORIENTATIONS[name])
    for blank in (False, True):
        options = SourceOptions(key=b"k" * 32, blank_text=blank)
        request = StoreRequest("dicom", "s", "US", "breast", options=options)
        made = add_store(tmp_path / "source", tmp_path / f"store {blank}", request).store
        (case, *_) = made.info.cases
        assert case.affine is not None
        slices = np.moveaxis(made.image(case.case_id), case.slice_axis, 0)
        assert [shows_writing(one, upright=False) for one in slices] == [not blank] * 2
        found = [f.cases for f in check_store(made).findings if f.kind == "writing"]
        assert [len(cases) for cases in found] == ([] if blank else [3])


@pytest.mark.parametrize("at", [0, 39])
def test_the_check_looks_at_ultrasound_whichever_way_its_slices_lie(tmp_path: Path, at: int):
    """Slices that lie closer than their pixels are not across the axis that is taken for theirs."""
    for number in range(3):
        patient, folder = f"P{number}", tmp_path / "source" / str(number)
        array = np.stack([scan(number)[30:150]] * 40)
        if number == 1:
            array[at] = scan(1, "MUSTER MARIA", at=(8, 36))[30:150]
        images = series(folder, array, patient=patient, modality="US",
                        orientation=ORIENTATIONS["sagittal"], spacing=(0.5, 0.5, 0.4))  # fmt: skip
        contours(
            folder / "rs.dcm", images, {"GTV": [(9, rectangle(90, 70, 120, 90))]}, patient=patient
        )
    request = StoreRequest("dicom", "s", "US", "breast", options=SourceOptions(key=b"k" * 32))
    made = add_store(tmp_path / "source", tmp_path / "store", request).store
    found = [f.cases for f in check_store(made).findings if f.kind == "writing"]
    assert [len(cases) for cases in found] == [1]


def test_blanking_is_refused_where_it_would_do_nothing(tmp_path: Path):
    placed(tmp_path / "dicom", "CT", STRAIGHT)
    save_nifti(tmp_path / "nifti" / "imagesTr" / "A.nii", np.ones((4, 5, 6), np.int16))
    save_nifti(tmp_path / "nifti" / "labelsTr" / "A.nii", np.ones((4, 5, 6), np.uint8))
    options = SourceOptions(key=b"k" * 32, blank_text=True)
    for folder, source_format in (("dicom", "dicom"), ("nifti", "msd")):
        (source, *_) = find_sources(tmp_path / folder, source_format, options)
        with pytest.raises(FlamesError, match="--blank-text cannot be used for") as caught:
            read_case(source, options)
        assert caught.value.remedy


def test_slices_that_become_a_volume_are_looked_at_one_by_one(kaggle3m: Path):
    written = scan(1, "MUSTER MARIA")
    for path in (kaggle3m / "kaggle_3m" / "TCGA_CS_0_19970222").glob("*.tif"):
        mask = np.zeros_like(written)
        save(path, mask if "mask" in path.name else np.stack([written] * 3, axis=-1))
    options = SourceOptions(blank_text=True)
    (source, *_) = find_sources(kaggle3m, "kaggle3m", options)
    case = read_case(source, options)
    upright = case.image[:, :, 0].T[::-1, ::-1]
    np.testing.assert_array_equal(upright, blank_writing(written))
