"""DICOM out: valid by the standard's tables, where the source is, and the same after reading."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import OBLIQUE, STRAIGHT, bare, changed, dataset, pixels, series, uid, write
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundMultiFrameImageStorage
from torch import nn

from flames.data.cases import read_case
from flames.data.dicom.find import find_dicom
from flames.data.dicom.stacks import LPS_TO_RAS
from flames.data.inputs import find_inputs
from flames.data.sources import SourceOptions
from flames.errors import FlamesError
from flames.inference.dicom_out import outlines
from flames.inference.outputs import WRITERS, MadeBy
from flames.inference.predict_files import PredictOptions, predict_file, predict_files
from flames.inference.score import TrainedModel
from flames.models.precision import choose_precision

FLOAT32 = choose_precision("float32")
MADE_BY = MadeBy("server:CT", "0123456789ab", probabilities=True)


class Bright(nn.Module):
    def forward(self, image):
        return image * 20


def model(modality: str = "CT") -> TrainedModel:
    return TrainedModel(f"server:{modality}", "server", modality, 32, Bright())


def scan() -> np.ndarray:
    """Return slices of air and muscle with a bright ring, so that a mask has holes and islands."""
    array = np.random.default_rng(0).integers(850, 950, (6, 32, 32), dtype=np.int16)
    array[:, :3] = 0
    array[1:4, 8:20, 6:22] = 1800
    array[2, 12:15, 10:14] = 900
    array[4, 25, 25] = 1800
    array[5, 24, 24] = array[5, 25, 25] = 1800
    return array


def found(folder: Path, **given: Any):
    series(folder, scan(), **given)
    (one,) = find_inputs([folder])
    return predict_file(model(), one, precision=FLOAT32, options=PredictOptions())


# --- valid ------------------------------------------------------------------------------------


def missing(data: Dataset, iod: str) -> list[str]:
    """Return what the standard's tables require of an object and it does not hold.

    Attributes of type 1 must be there with a value, of type 2 be there, wherever the item that they
    stand in is there; of mandatory modules.
    """
    standard = files("highdicom._standard")
    modules = json.loads(standard.joinpath("iod_module_map.json").read_text())[iod]
    attributes = json.loads(standard.joinpath("module_attribute_map.json").read_text())
    lost = []
    for module in modules:
        if module["usage"] != "M":
            continue
        for one in attributes[module["key"]]:
            for item in items(data, one["path"]):
                there = one["keyword"] in item
                empty = not there or item[one["keyword"]].is_empty
                if elsewhere(data, one["path"], one["keyword"]):
                    continue
                if (one["type"] == "1" and empty) or (one["type"] == "2" and not there):
                    lost.append(".".join([module["key"], *one["path"], one["keyword"]]))
    return lost


def elsewhere(data: Dataset, path: list[str], keyword: str) -> bool:
    """Return whether a functional group is in every frame, or shared; no slides are made here."""
    shared, own = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
    if len(path) != 1 or path[0] not in (shared, own):
        return False
    everywhere = keyword in data[shared].value[0] or all(keyword in one for one in data[own].value)
    return everywhere or "Slide" in keyword


def items(data: Dataset, path: list[str]) -> list[Dataset]:
    here = [data]
    for keyword in path:
        here = [item for one in here if keyword in one for item in one[keyword].value or []]
    return here


@pytest.mark.parametrize(
    ("name", "iod"), [("seg", "segmentation"), ("rtstruct", "rt-structure-set")]
)
def test_objects_hold_all_that_the_standard_requires(tmp_path: Path, name: str, iod: str):
    finding = found(tmp_path / "i")
    for path in WRITERS[name](finding, tmp_path / "out", MADE_BY):
        data = pydicom.dcmread(path)
        assert missing(data, iod) == []
        data.pop("StudyInstanceUID")
        assert missing(data, iod)


def test_a_segmentation_says_what_it_is_and_who_made_it(tmp_path: Path):
    finding = found(tmp_path / "i")
    path, _ = WRITERS["seg"](finding, tmp_path / "out", MADE_BY)
    data = pydicom.dcmread(path)
    (segment,) = data.SegmentSequence
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("108369006", "SCT")
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("server:CT", "0123456789ab")
    assert "Research use only" in data.ContentDescription
    source = pydicom.dcmread(finding.input.path)
    assert data.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert data[keyword].value == source[keyword].value
    assert data.SeriesInstanceUID != source.SeriesInstanceUID


# --- the same place ---------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_a_segmentation_lies_on_the_grid_of_its_source(tmp_path: Path, orientation):
    finding = found(tmp_path / "i", orientation=orientation)
    path, fractional = WRITERS["seg"](finding, tmp_path / "out", MADE_BY)
    seg = hd.seg.segread(path)
    expected = scan() > 1500
    volume = seg.get_volume(combine_segments=True)
    assert finding.scan.stack is not None
    place = LPS_TO_RAS @ finding.scan.stack.affine
    # highdicom counts slices, rows, columns; the first frame with tumour may be a later slice.
    first = np.flatnonzero(expected.any(axis=(1, 2)))
    whole = np.zeros(expected.shape, bool)
    for k, plane in enumerate(np.asarray(volume.array)):
        point = volume.affine @ [k, 0, 0, 1]
        at = np.linalg.solve(place, point)
        np.testing.assert_allclose(at[:2], 0, atol=1e-3)
        assert at[2] == pytest.approx(round(float(at[2])), abs=1e-3)
        whole[round(float(at[2]))] = plane > 0
    np.testing.assert_array_equal(whole, expected)
    assert first[0] == 1
    np.testing.assert_allclose(volume.spacing, (3.0, 0.7, 0.9), rtol=1e-4)
    data = pydicom.dcmread(fractional)
    assert (data.SegmentationType, data.MaximumFractionalValue) == ("FRACTIONAL", 255)


@pytest.mark.parametrize("name", ["seg", "rtstruct"])
@pytest.mark.parametrize("orientation", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_what_is_written_is_read_back_as_the_same_mask(tmp_path: Path, name: str, orientation):
    finding = found(tmp_path / "i", orientation=orientation)
    WRITERS[name](finding, tmp_path / "i", MadeBy("m", "1"))
    options = SourceOptions(roi="tumour", key=b"k" * 32)
    (source,) = find_dicom(tmp_path / "i", options)
    case = read_case(source, options)
    np.testing.assert_array_equal(case.label > 0, finding.mask)
    np.testing.assert_array_equal(case.image, finding.scan.image)
    assert finding.mask.sum() == (scan() > 1500).sum()


@pytest.mark.parametrize("name", ["seg", "rtstruct"])
def test_a_source_without_preamble_is_referred_to(tmp_path: Path, name: str):
    for path in series(tmp_path / "i", scan()):
        bare(path, "implicit")
    (one,) = find_inputs([tmp_path / "i"])
    finding = predict_file(model(), one, precision=FLOAT32, options=PredictOptions())
    WRITERS[name](finding, tmp_path / "i", MadeBy("m", "1"))
    options = SourceOptions(roi="tumour", key=b"k" * 32)
    (source,) = find_dicom(tmp_path / "i", options)
    np.testing.assert_array_equal(read_case(source, options).label > 0, finding.mask)


def test_probabilities_come_back_as_a_mask_at_one_half(tmp_path: Path):
    finding = found(tmp_path / "i")
    path, fractional = WRITERS["seg"](finding, tmp_path / "i", MADE_BY)
    path.unlink()
    options = SourceOptions(roi="tumour", key=b"k" * 32)
    (source,) = find_dicom(tmp_path / "i", options)
    case = read_case(source, options)
    assert fractional.exists()
    differs = (case.label > 0) != finding.mask
    assert not differs[np.abs(finding.probabilities - 0.5) > 1 / 255].any()


def test_nothing_found_is_a_valid_empty_segmentation(tmp_path: Path):
    series(tmp_path / "i", np.random.default_rng(0).integers(800, 860, (3, 32, 32), dtype=np.int16))
    (one,) = find_inputs([tmp_path / "i"])
    finding = predict_file(model(), one, precision=FLOAT32, options=PredictOptions())
    assert not finding.mask.any()
    path, _ = WRITERS["seg"](finding, tmp_path / "out", MADE_BY)
    data = pydicom.dcmread(path)
    assert missing(data, "segmentation") == []
    assert not data.pixel_array.any()
    (rtstruct,) = WRITERS["rtstruct"](finding, tmp_path / "out", MADE_BY)
    assert len(pydicom.dcmread(rtstruct).ROIContourSequence[0].ContourSequence) == 0


@pytest.mark.parametrize("seed", range(5))
def test_outlines_hold_exactly_the_pixels_whose_centres_they_hold(seed: int):
    from flames.data.dicom.contours import inside

    mask = np.random.default_rng(seed).random((9, 11)) < 0.5
    back = np.zeros(mask.shape, bool)
    for ring in outlines(mask):
        back ^= inside(ring[:, ::-1], mask.shape)
    np.testing.assert_array_equal(back, mask)


# --- through the command's own door -----------------------------------------------------------


def test_a_folder_of_series_becomes_segmentations(tmp_path: Path):
    series(tmp_path / "in" / "a", scan(), patient="A")
    series(tmp_path / "in" / "b", scan(), patient="B", modality="MR")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    looked = list(
        predict_files(
            model(),
            find_inputs([tmp_path / "in"]),
            tmp_path / "out",
            precision=FLOAT32,
            options=PredictOptions(),
        )
    )
    assert [one.error is None for one in looked] == [True, False]
    assert "is MR, model server:CT was trained on CT" in str(looked[1].error)
    assert (tmp_path / "out" / "a_seg.dcm").exists()
    assert not list((tmp_path / "out").glob("b*"))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (2, 0, 5, 1, 4, 3)])
def test_frames_of_one_file_are_found_where_they_lie(tmp_path: Path, order):
    array = scan()[list(order)]
    frame = Dataset()
    frame.PixelSpacing, frame.SliceThickness = [0.7, 0.9], 3.0
    turn, value = Dataset(), Dataset()
    turn.ImageOrientationPatient = list(STRAIGHT)
    value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 1, -1024, "HU"
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [frame], [turn]
    shared.PixelValueTransformationSequence = [value]
    groups = []
    for height in order:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [-30.0, 20, 100 + 3 * height]
        group.PlanePositionSequence = [place]
        groups.append(group)
    data = dataset("CT", "P", FrameOfReferenceUID=uid("P"))
    data.SOPClassUID, data.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.2.1", len(order)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], groups
    pixels(data, array[0])
    data.PixelData = array.tobytes()
    write(tmp_path / "i" / "ct.dcm", data)
    (one,) = find_inputs([tmp_path / "i"])
    finding = predict_file(model(), one, precision=FLOAT32, options=PredictOptions())
    path = WRITERS["seg"](finding, tmp_path / "out", MADE_BY)[0]
    written = hd.seg.segread(path)
    shown = {
        float(group.PlanePositionSequence[0].ImagePositionPatient[2]): plane
        for group, plane in zip(
            written.PerFrameFunctionalGroupsSequence, written.pixel_array, strict=True
        )
    }
    for slot, plane in enumerate(finding.mask.transpose(2, 1, 0)[:, ::-1, ::-1]):
        # the mask lies nearest RAS, the frames LPS
        np.testing.assert_array_equal(shown.get(100.0 + 3 * slot, 0 * plane) > 0, plane)


def test_ultrasound_gets_a_segmentation_frame_by_frame(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 60, (32, 40), dtype=np.uint8)
    array[8:20, 6:22] = 250
    data = dataset("US", "P", PatientOrientation="")
    write(tmp_path / "i" / "us.dcm", pixels(data, array))
    (one,) = find_inputs([tmp_path / "i"])
    finding = predict_file(model("US"), one, precision=FLOAT32, options=PredictOptions())
    assert finding.mask.shape == (32, 40)
    path, _ = WRITERS["seg"](finding, tmp_path / "i", MADE_BY)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array.squeeze() > 0, finding.mask)
    with pytest.raises(FlamesError, match="no place in the patient"):
        WRITERS["rtstruct"](finding, tmp_path / "out", MADE_BY)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_clip_without_a_place_gets_pictures(tmp_path: Path, frames: int):
    array = np.random.default_rng(0).integers(0, 60, (frames, 32, 40), dtype=np.uint8)
    array[-1, 8:20, 6:22] = 250
    data = pixels(dataset("US", "P", NumberOfFrames=frames), array[0])
    data.SOPClassUID, data.PixelData = UltrasoundMultiFrameImageStorage, array.tobytes()
    write(tmp_path / "i" / "us.dcm", data)
    for formats, pictures in (((), frames), (("seg", "png"), frames), (("seg",), 0)):
        out = tmp_path / f"out-{'-'.join(formats)}"
        (looked,) = predict_files(
            model("US"),
            find_inputs([tmp_path / "i"]),
            out,
            precision=FLOAT32,
            options=PredictOptions(formats=formats),
        )
        assert len(list(out.rglob("*.png"))) == pictures
        assert (looked.error is None) == ("seg" not in formats)
        if looked.error is not None:
            assert "a clip without a place" in looked.error.found


@pytest.mark.parametrize(("said", "scale", "unit"), [([0.2, 0.2], 0.2, "mm"), (None, 1.0, "px")])
def test_a_lesion_of_a_clip_is_as_wide_as_its_pixels_say(tmp_path: Path, said, scale, unit):
    array = np.zeros((3, 32, 32), np.uint8)
    array[1, 8:20, 6:22] = 250
    data = pixels(dataset("US", "P", NumberOfFrames=3), array[0])
    data.SOPClassUID, data.PixelData = UltrasoundMultiFrameImageStorage, array.tobytes()
    if said:
        data.PixelSpacing = said
    write(tmp_path / "us.dcm", data)
    (one,) = find_inputs([tmp_path])
    (lesion,) = predict_file(model("US"), one, precision=FLOAT32, options=PredictOptions()).lesions
    assert (lesion.size, lesion.size_unit) == (12 * 16, "voxels")
    # From the edge of one corner's pixel to that of the opposite one, half a pixel in.
    assert lesion.diameter == pytest.approx(scale * np.hypot(11, 16), abs=0.02)
    assert lesion.diameter_unit == unit


@pytest.mark.parametrize("thick", [3.0, None, 0.0])
def test_a_single_slice_has_a_volume_only_where_it_says_how_thick_it_is(tmp_path: Path, thick):
    array = scan()[2:3]
    array[0, 8:20, 6:22] = 1800
    (path,) = series(tmp_path / "i", array)
    changed(path, lambda data: setattr(data, "SliceThickness", thick))
    (one,) = find_inputs([tmp_path / "i"])
    finding = predict_file(model(), one, precision=FLOAT32, options=PredictOptions())
    lesion = finding.lesions[0]
    size = (round(12 * 16 * 0.7 * 0.9 * 3 / 1000, 6), "ml") if thick else (12 * 16, "voxels")
    assert (lesion.size, lesion.size_unit) == size
    assert lesion.diameter_unit == "mm"
    assert WRITERS["seg"](finding, tmp_path / "out", MADE_BY)


def test_what_is_not_dicom_has_no_series_to_refer_to(tmp_path: Path):
    from source_folders import save_nifti

    path = save_nifti(tmp_path / "a.nii.gz", scan().T - np.int16(1024))
    (one,) = find_inputs([path])
    finding = predict_file(model(), one, precision=FLOAT32, options=PredictOptions())
    for name in ("seg", "rtstruct"):
        with pytest.raises(FlamesError, match="is not DICOM") as caught:
            WRITERS[name](finding, tmp_path / "out", MADE_BY)
        assert caught.value.remedy
