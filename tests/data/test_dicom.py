"""DICOM in: sorted by its own geometry, in Hounsfield units, contours where they were drawn."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import (
    OBLIQUE,
    STRAIGHT,
    bare,
    changed,
    contours,
    dataset,
    pixels,
    rectangle,
    series,
    uid,
    volume,
    write,
)
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset

from flames.data.cases import Case, read_case
from flames.data.dicom.contours import inside
from flames.data.dicom.find import find_dicom
from flames.data.dicom.headers import begins_bare
from flames.data.inputs import find_inputs
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.data.store import SiteStore
from flames.errors import FlamesError

KEY = b"k" * 32
GTV = SourceOptions(roi="gtv.*", key=KEY)
RINGS = {"GTV_1": [(2, rectangle(2.5, 3.5, 6.5, 7.5))], "Heart": [(1, rectangle(1, 1, 4, 4))]}
"""Columns 3 to 6 and rows 4 to 7 of slice 2."""


def one_case(folder: Path, options: SourceOptions = GTV) -> Case:
    (source,) = find_dicom(folder, options)
    return read_case(source, options)


@pytest.mark.parametrize("orientation", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_a_series_is_sorted_by_its_place_and_in_hounsfield_units(tmp_path: Path, orientation):
    array = volume()
    contours(tmp_path / "rs.dcm", series(tmp_path / "i", array, orientation=orientation), RINGS)
    case = one_case(tmp_path)
    assert sorted(case.spacing) == pytest.approx([0.7, 0.9, 3.0], abs=1e-4)
    assert case.image.dtype == np.int16
    turn = np.array(orientation).reshape(2, 3)
    normal = np.cross(turn[0], turn[1])
    to_lps = np.diag([-1.0, -1, 1, 1]) @ case.affine
    for index in np.random.default_rng(2).integers(0, case.image.shape, (20, 3)):
        i, j, k = np.linalg.solve(
            np.column_stack([turn[0] * 0.9, turn[1] * 0.7, normal * 3.0]),
            apply_affine(to_lps, index) - [-30.0, 20, 100],
        ).round(3)
        assert case.image[tuple(index)] == array[int(k), int(j), int(i)] - 1024
    assert case.label.sum() == 16
    assert case.image[case.label > 0].sum() == (array[2, 4:8, 3:7].astype(int) - 1024).sum()


def test_holes_are_holes_and_structures_are_joined(tmp_path: Path):
    files = series(tmp_path / "i")
    rings = {
        "GTV a": [
            (2, rectangle(0.5, 0.5, 6.5, 6.5)),
            (2, rectangle(2.5, 2.5, 4.5, 4.5)),
        ],
        "GTV b": [(2, rectangle(5.5, 5.5, 7.5, 7.5)), (3, rectangle(0.5, 0.5, 1.5, 1.5))],
    }
    contours(tmp_path / "rs.dcm", files, rings)
    label = one_case(tmp_path).label
    assert label.sum() == (36 - 4) + (4 - 1) + 1


@pytest.mark.parametrize(("modality", "first"), [("CT", -1024), ("MR", 4095)])
def test_only_a_ct_keeps_its_values_where_it_is_shown_inverted(
    tmp_path: Path, modality: str, first: int
):
    array = volume()
    array[0, 0, 0] = 0
    files = series(tmp_path / "i", array, modality=modality)

    def invert(data: Dataset) -> None:
        data.PhotometricInterpretation, data.BitsStored, data.HighBit = "MONOCHROME1", 12, 11
        data.PixelRepresentation = 0

    for path in files:
        changed(path, invert)
    contours(tmp_path / "rs.dcm", files, RINGS)
    case = one_case(tmp_path)
    assert case.image[-1, -1, 0] == first
    shown = array.transpose(2, 1, 0)[::-1, ::-1].astype(int)
    np.testing.assert_array_equal(case.image, shown - 1024 if modality == "CT" else 4095 - shown)


def test_spaces_around_a_patient_are_no_other_patient(tmp_path: Path):
    for name, patient in (("a", "P1"), ("b", " P1"), ("c", "P2")):
        files = series(tmp_path / name / "i", patient=patient, series=name)
        contours(tmp_path / name / "rs.dcm", files, RINGS, patient=patient)
    one, two, other = find_dicom(tmp_path, GTV)
    assert one.patient_id == two.patient_id != other.patient_id
    assert one.case_id != two.case_id


def test_series_that_name_no_patient_are_said(tmp_path: Path):
    patients(tmp_path / "source", 3)
    request = StoreRequest("dicom", "s", "CT", "limb", options=GTV)
    assert add_store(tmp_path / "source", tmp_path / "a", request).notes == ()
    for path in (tmp_path / "source" / "MUSTER-1").rglob("*.dcm"):
        changed(path, lambda data: data.update({"PatientID": "", "PatientName": None}))
    first = add_store(tmp_path / "source", tmp_path / "b", request)
    (tmp_path / "b" / "splits.json").unlink()  # as if it had been stopped
    added = add_store(tmp_path / "source", tmp_path / "b", request)
    assert (added.kept, added.notes) == (3, first.notes)
    (name,) = added.store.cases.keys() - SiteStore.open(tmp_path / "a").cases.keys()
    (note,) = added.notes
    assert note.startswith("the files name no patient")
    assert note.endswith(f": {name}")


@pytest.mark.parametrize("thick", [3.0, None, 0.0])
def test_a_single_slice_has_a_spacing_only_where_it_says_how_thick_it_is(tmp_path: Path, thick):
    patients(tmp_path / "source", 3)
    (path,) = series(tmp_path / "source" / "one", volume()[2:3], patient="P9")
    changed(path, lambda data: setattr(data, "SliceThickness", thick))
    ring = {"GTV": [(0, rectangle(2.5, 3.5, 6.5, 7.5))]}
    contours(tmp_path / "source" / "rs.dcm", [path], ring, patient="P9")
    request = StoreRequest("dicom", "s", "CT", "limb", options=GTV)
    first = add_store(tmp_path / "source", tmp_path / "a", request)
    (case,) = (case for case in first.store.cases.values() if case.shape[2] == 1)
    said = ((0.9, 0.7, 3.0), "mm") if thick else ((1.0, 1.0, 1.0), "px")
    assert (case.spacing, case.spacing_unit, case.slice_axis) == (*said, 2)
    if thick:
        assert first.notes == ()
        return
    (note,) = first.notes
    assert note.startswith("a single slice does not say how thick it is")
    assert note.endswith(f": {case.case_id}")
    (tmp_path / "a" / "splits.json").unlink()  # as if it had been stopped
    assert add_store(tmp_path / "source", tmp_path / "a", request).notes == (note,)
    known = replace(request, options=replace(GTV, unknown_spacing=True))
    assert add_store(tmp_path / "source", tmp_path / "b", known).notes == ()


@pytest.mark.parametrize("which", ["one", "all", "single"])
def test_a_series_without_the_size_of_its_pixels_is_refused(tmp_path: Path, which: str):
    files = series(tmp_path / "i", volume()[:1] if which == "single" else volume())
    contours(tmp_path / "rs.dcm", files, {"GTV": [(0, rectangle(2.5, 3.5, 6.5, 7.5))]})
    for path in files[3:4] if which == "one" else files:
        changed(path, lambda data: data.pop("PixelSpacing"))
    with pytest.raises(FlamesError, match=r"\.dcm does not say how large its pixels are") as caught:
        one_case(tmp_path)
    assert "PixelSpacing" in caught.value.remedy


def test_a_circle_has_the_area_of_a_circle():
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ring = np.column_stack([30.2 + 20 * np.cos(angles), 31.7 + 20 * np.sin(angles)])
    assert inside(ring, (64, 64)).sum() == pytest.approx(np.pi * 400, rel=0.01)
    assert inside(ring[::-1], (64, 64)).sum() == inside(ring, (64, 64)).sum()
    assert inside(ring + 100, (64, 64)).sum() == 0


def test_without_roi_a_single_structure_is_taken_and_several_are_named(tmp_path: Path):
    files = series(tmp_path / "a" / "i")
    contours(tmp_path / "a" / "rs.dcm", files, {"tumour": RINGS["GTV_1"]})
    assert one_case(tmp_path / "a", SourceOptions(key=KEY)).label.sum() == 16
    contours(tmp_path / "a" / "rs.dcm", files, RINGS)
    with pytest.raises(FlamesError, match="'GTV_1', 'Heart'") as caught:
        one_case(tmp_path / "a", SourceOptions(key=KEY))
    assert "--roi" in caught.value.remedy
    with pytest.raises(FlamesError, match="no structure that --roi"):
        one_case(tmp_path / "a", SourceOptions(roi="PTV", key=KEY))


def test_a_label_without_reference_finds_its_series_by_frame_of_reference(tmp_path: Path):
    files = series(tmp_path / "ct")
    series(tmp_path / "mr", modality="MR", patient="P1")
    series(tmp_path / "other", patient="P2")
    contours(tmp_path / "rs.dcm", files, RINGS, refer=False)
    found = find_dicom(tmp_path, GTV)
    assert sorted(s.modality for s in found) == ["CT", "MR"]
    series(tmp_path / "twin", series="second")
    with pytest.raises(FlamesError, match="fits 2 CT series"):
        find_dicom(tmp_path, GTV)


SPOILED = {
    "missing slice": ({"heights": [0, 3, 6, 12, 15, 18]}, "1 slice\\(s\\) are missing"),
    "two missing": ({"heights": [0, 3, 6, 15, 18, 21]}, "2 slice\\(s\\) are missing"),
    "doubled slice": ({"heights": [0, 3, 6, 6, 9, 12]}, "a slice is there twice"),
    "uneven": ({"heights": [0, 3, 6, 10, 13, 16]}, "the spacing is uneven"),
    "tilted gantry": ({"shear": 0.3}, "by 16.7 degrees"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_series_that_does_not_fit_is_explained(tmp_path: Path, name: str):
    given, words = SPOILED[name]
    files = series(tmp_path / "i", **given)
    contours(tmp_path / "rs.dcm", files, {"GTV": [(0, rectangle(1, 1, 5, 5))]})
    request = StoreRequest("dicom", "s", "CT", "limb", options=GTV)
    with pytest.raises(FlamesError, match=words) as caught:
        add_store(tmp_path, tmp_path / "store", request)
    assert ".dcm" in caught.value.found
    assert caught.value.remedy
    assert not (tmp_path / "store" / "store.json").exists()


def test_slices_cut_in_two_directions_are_explained(tmp_path: Path):
    files = series(tmp_path / "i")
    series(tmp_path / "i" / "survey", volume((1, 10, 12)), orientation=OBLIQUE, heights=[50])
    survey = next((tmp_path / "i" / "survey").iterdir())
    import pydicom

    data = pydicom.dcmread(survey)
    data.SOPInstanceUID = uid("survey")
    write(survey, data)
    contours(tmp_path / "rs.dcm", files, RINGS)
    with pytest.raises(FlamesError, match="another direction"):
        one_case(tmp_path)


def test_a_copy_of_a_file_is_no_second_slice(tmp_path: Path):
    files = series(tmp_path / "i")
    (tmp_path / "i" / "copy.dcm").write_bytes(files[0].read_bytes())
    contours(tmp_path / "rs.dcm", files, RINGS)
    assert one_case(tmp_path).image.shape == (12, 10, 6)


def test_slices_that_share_an_instance_number_are_all_there(tmp_path: Path):
    files = series(tmp_path / "i")
    for path in files[3:]:
        changed(path, lambda data: setattr(data, "SOPInstanceUID", "1.2.3"))
    contours(tmp_path / "rs.dcm", files, RINGS)
    assert one_case(tmp_path).image.shape == (12, 10, 6)


def test_contours_that_do_not_fit_are_named(tmp_path: Path):
    files = series(tmp_path / "i")
    between = contours(tmp_path / "rs.dcm", files, {"GTV": [(5, rectangle(1, 1, 5, 5))]})
    for path in files:
        import pydicom

        data = pydicom.dcmread(path)
        data.ImagePositionPatient[2] = float(data.ImagePositionPatient[2]) - 9
        write(path, data)
    with pytest.raises(FlamesError, match=f"{between.name} has a contour outside of its image"):
        one_case(tmp_path)


@pytest.mark.parametrize(
    ("keep", "words"),
    [("i", "no label"), ("rs.dcm", "no DICOM image"), (None, "no DICOM image")],
)
def test_a_folder_that_lacks_something_is_explained(tmp_path: Path, keep, words):
    source = tmp_path / "source"
    contours(source / "rs.dcm", series(source / "i"), RINGS)
    (source / "notes.txt").write_text("no image")
    if keep != "rs.dcm":
        (source / "rs.dcm").unlink()
    if keep != "i":
        for path in (source / "i").iterdir():
            path.unlink()
    with pytest.raises(FlamesError, match=words) as caught:
        find_dicom(source, GTV)
    assert caught.value.remedy


@pytest.mark.parametrize("how", ["with meta group", "implicit", "explicit", "big"])
def test_files_without_preamble_and_ending_are_read_too(tmp_path: Path, how: str):
    contours(tmp_path / "a" / "rs.dcm", series(tmp_path / "a"), RINGS)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in sorted((tmp_path / "b").iterdir()):
        bare(path, how)
    expected, found = one_case(tmp_path / "a"), one_case(tmp_path / "b")
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.label, expected.label)
    (one, *_) = find_inputs([tmp_path / "b"])
    assert len(one.paths) == len(volume())


@pytest.mark.parametrize(
    "start", [b"", b"\0" * 200, b"\x08\0", b"\x08\0\x05\0\x0a\0\0\0", b"\x93NUMPY\x01\0", b"notes"]
)
def test_other_files_are_no_dicom_without_preamble(start: bytes):
    assert not begins_bare(start)


def test_truncated_files_are_named(tmp_path: Path):
    files = series(tmp_path / "i")
    label = contours(tmp_path / "rs.dcm", files, RINGS)
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:-50])
    with pytest.raises(FlamesError, match="truncated") as caught:
        one_case(tmp_path)
    assert files[2].name in caught.value.found
    files[2].write_bytes(whole)
    label.write_bytes(b"\0" * 128 + b"DICM" + b"\x08\x00junk")
    with pytest.raises(FlamesError) as caught:
        one_case(tmp_path)
    assert "rs.dcm" in caught.value.found


def test_a_value_of_no_known_kind_is_a_damaged_file(tmp_path: Path):
    """pydicom notices an unknown kind of value only when the value is asked for."""
    label = contours(tmp_path / "rs.dcm", series(tmp_path / "i"), RINGS)
    label.write_bytes(label.read_bytes().replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00GS"))
    with pytest.raises(FlamesError, match=r"rs\.dcm cannot be read"):
        find_dicom(tmp_path, GTV)


def patients(folder: Path, count: int = 4) -> Path:
    for number in range(count):
        patient = f"MUSTER-{number}"
        files = series(folder / patient / "i", volume() + number, patient=patient)
        contours(folder / patient / "rs.dcm", files, RINGS, patient=patient)
    return folder


def test_a_folder_and_its_zip_give_the_same_store(tmp_path: Path):
    source = patients(tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "source.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(source.rglob("*.dcm")):
            archive.write(path, path.relative_to(source))
    request = StoreRequest("dicom", "s", "CT", "limb", options=GTV)
    one = add_store(source, tmp_path / "a", request).store
    two = add_store(tmp_path / "source.zip", tmp_path / "b", request, workers=2).store
    assert [c.arrays_sha256 for c in one.info.cases] == [c.arrays_sha256 for c in two.info.cases]
    assert [c.case_id for c in one.info.cases] == [c.case_id for c in two.info.cases]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "source", "source.zip"]
    again = add_store(source, tmp_path / "a", request)
    assert (again.prepared, again.kept) == (0, 4)


def test_a_damaged_zip_leaves_nothing(tmp_path: Path):
    (tmp_path / "x.zip").write_bytes(b"PK\3\4 no zip")
    with pytest.raises(FlamesError, match="cannot unpack"):
        add_store(
            tmp_path / "x.zip", tmp_path / "d" / "store", StoreRequest("dicom", "s", "CT", "l")
        )
    assert list((tmp_path / "d").iterdir()) == []


def test_another_modality_is_said(tmp_path: Path):
    source = patients(tmp_path / "source")
    with pytest.raises(FlamesError, match="no labelled image of MR, only of CT"):
        add_store(source, tmp_path / "a", StoreRequest("dicom", "s", "MR", "limb", options=GTV))


def test_ultrasound_of_colour_keeps_rows_and_columns(tmp_path: Path):
    from pydicom.sequence import Sequence

    from flames.data.dicom.find import read_files
    from flames.data.dicom.pixels import stack_volume
    from flames.data.dicom.stacks import stack_headers

    array = np.zeros((20, 30, 3), np.uint8)
    array[5:10, 3:9] = (200, 100, 0)
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.05
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 29, 19
    data = dataset("US", "P1", SequenceOfUltrasoundRegions=Sequence([region]))
    path = write(tmp_path / "us.dcm", pixels(data, array))
    ((header,),) = read_files([path])[0].values()
    stack = stack_headers([header])
    assert stack.affine is None
    assert stack.frames[0].spacing == pytest.approx((0.5, 0.2))
    grey = stack_volume(stack)[:, :, 0].T
    assert grey.shape == (20, 30)
    assert grey[5, 3] == round(0.299 * 200 + 0.587 * 100)


def test_the_store_of_two_runs_has_the_same_names_only_with_the_same_key(tmp_path: Path):
    source = patients(tmp_path / "source", 1)
    (one,) = find_dicom(source, GTV)
    (two,) = find_dicom(source, GTV)
    (other,) = find_dicom(source, SourceOptions(roi="gtv.*", key=b"z" * 32))
    assert one.case_id == two.case_id != other.case_id
    with pytest.raises(FlamesError, match="no key"):
        find_dicom(source, SourceOptions(roi="gtv.*"))
