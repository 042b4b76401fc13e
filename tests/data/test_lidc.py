"""LIDC-IDRI in the archive's own layout: outlines, holes, consensus, and what is refused."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import changed, series, uid
from lidc_files import NODULE, XML, archive, message, patient, radiograph, ring, session
from source_folders import save_nifti
from typer.testing import CliRunner

from flames.cli.data import data as data_app
from flames.data.cases import read_case
from flames.data.dicom import nodules
from flames.data.dicom.nodules import Outline, enclosed, read_nodules
from flames.data.formats import find_sources
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.data.store import SiteStore
from flames.data.volumes import to_ras
from flames.errors import FlamesError

NAME = "LIDC-IDRI-0007"
IMAGES = f"{NAME}/CT/None"
OPTIONS = SourceOptions(key=b"k" * 32)
DRAWN = [(x, y, z) for z, last in ((2, 5), (3, 4)) for x in range(3, 6) for y in range(4, 8)
         if z == 2 or (x, y) == (last, 5)]  # fmt: skip
"""What two of four readers drew, as (column, row, slice)."""


def label(root: Path) -> np.ndarray:
    """Return the only case's label as (column, row, slice), as its files lie."""
    (source,) = find_sources(root, "lidc", OPTIONS)
    case = read_case(source, OPTIONS)
    return to_ras(case.label, np.diag([-1.0, -1.0, 1.0, 1.0]))[0]


def voxels(mask: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(tuple(int(v) for v in place) for place in np.argwhere(mask))


def outline(points: list[tuple[int, int]], *, hole: bool = False) -> Outline:
    return Outline("1.2.3", tuple(points), hole)


def test_a_voxel_is_tumour_where_two_of_four_readers_drew_it(tmp_path: Path) -> None:
    patient(tmp_path, NAME)
    assert voxels(label(tmp_path)) == sorted(DRAWN)


@pytest.mark.parametrize(
    ("readers", "agreeing", "tumour"),
    [(4, 1, False), (4, 2, True), (3, 1, False), (3, 2, True), (2, 1, True), (1, 1, True)],
)
def test_half_of_the_readers_is_enough(
    tmp_path: Path, readers: int, agreeing: int, tumour: bool
) -> None:
    texts = [session(IMAGES, NODULE if k < agreeing else []) for k in range(readers)]
    patient(tmp_path, NAME, texts)
    assert label(tmp_path).any() == tumour


def test_two_nodules_of_one_reader_are_one_vote(tmp_path: Path) -> None:
    twice = [*NODULE, *NODULE]
    patient(tmp_path, NAME, [session(IMAGES, twice), *[session(IMAGES, [])] * 3])
    assert not label(tmp_path).any()


def test_a_hole_is_no_tumour_nor_is_its_outline_whichever_comes_first(tmp_path: Path) -> None:
    whole, hole = (2, ring(1, 1, 9, 8), True), (2, ring(4, 3, 6, 5), False)
    other = [[(2, ring(3, 2, 7, 6), True)]]
    full = {(x, y, 2) for x in range(2, 9) for y in range(2, 8)}
    without = full - {(x, y, 2) for x in range(4, 7) for y in range(3, 6)}
    patient(tmp_path, NAME, [session(IMAGES, [[whole, hole]]), session(IMAGES, [[hole, whole]])])
    assert voxels(label(tmp_path)) == sorted(without)
    # A hole belongs to its nodule: another nodule there stays.
    shutil.rmtree(tmp_path / NAME)
    patient(tmp_path, NAME, [session(IMAGES, [[whole, hole], *other])])
    inner = {(x, y, 2) for x in range(4, 7) for y in range(3, 6)}
    assert voxels(label(tmp_path)) == sorted(without | inner)


def test_an_outline_is_the_first_pixel_outside() -> None:
    assert voxels(enclosed([outline(ring(1, 2, 4, 4))], (6, 7))) == [(2, 3), (3, 3)]
    diamond = [(3, 1), (4, 2), (5, 3), (4, 4), (3, 5), (2, 4), (1, 3), (2, 2)]
    five = [(2, 3), (3, 2), (3, 3), (3, 4), (4, 3)]
    assert voxels(enclosed([outline(diamond)], (7, 7))) == five
    corners = [(3, 1), (5, 3), (3, 5), (1, 3)]  # the same line, said by its corners
    assert voxels(enclosed([outline(corners)], (7, 7))) == five
    assert not enclosed([outline([(2, 2), (2, 3), (2, 4), (2, 3)])], (6, 6)).any()


def test_every_series_of_a_patient_is_a_case_under_a_hash(tmp_path: Path) -> None:
    archive(tmp_path / "source")
    patient(tmp_path / "source", "LIDC-IDRI-0002", [session("LIDC-IDRI-0002/CT/b", NODULE)], "b")
    series(tmp_path / "source" / "LIDC-IDRI-0003" / "s" / "unread", patient="LIDC-IDRI-0003",
           series="unread")  # fmt: skip
    request = StoreRequest("lidc", "s", "CT", "lung", options=OPTIONS)
    store = add_store(tmp_path / "source", tmp_path / "store", request).store
    cases = store.info.cases
    assert [case.tumour_voxels for case in cases] == [len(DRAWN)] * 4
    assert len({case.patient_id for case in cases}) == 3
    assert {case.spacing for case in cases} == {(0.9, 0.7, 3.0)}
    assert {case.spacing_unit for case in cases} == {"mm"}
    assert "unknown_spacing" not in store.info.settings
    for path in (tmp_path / "store").rglob("*"):
        for word in ("LIDC-IDRI", "068", uid("LIDC-IDRI-0001", "CT", "series", None)):
            assert word not in path.name
            assert path.is_dir() or word.encode() not in path.read_bytes() or word == "068"
    again = add_store(tmp_path / "source", tmp_path / "store", request)
    assert (again.prepared, again.kept) == (0, 4)


def test_a_converted_folder_keeps_its_unknown_spacing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    mask = np.zeros((8, 7, 6), np.uint8)
    mask[2:4, 2:4, 2] = 1
    for number in range(3):
        image = np.random.default_rng(number).integers(-900, 400, mask.shape, dtype=np.int16)
        save_nifti(source / "imagesTr" / f"{number}.nii.gz", image)
        save_nifti(source / "labelsTr" / f"{number}.nii.gz", mask)
    request = StoreRequest("lidc", "s", "CT", "lung")
    store = add_store(source, tmp_path / "store", request).store
    assert store.info.settings["unknown_spacing"] is True
    assert {(c.spacing_unit, c.tumour_voxels) for c in store.info.cases} == {("px", 4)}


def test_the_command_needs_only_the_name(tmp_path: Path) -> None:
    archive(tmp_path / "source")
    words = ["--format", "lidc", "--site", "s", "--modality", "CT", "--organ", "lung"]
    paths = [str(tmp_path / "source"), str(tmp_path / "store")]
    result = CliRunner().invoke(data_app, ["add", *paths, *words, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert len(SiteStore.open(tmp_path / "store").info.cases) == 3
    assert (tmp_path / "store.key").exists()
    page = CliRunner().invoke(data_app, ["datasets", "lidc"]).output
    assert "at least half of the readers" in page
    assert "LIDC-IDRI-0001" in page


@pytest.mark.parametrize("tag", ["IdriReadMessage", "LidcReadMessage"])
def test_chest_radiographs_are_passed_over(tmp_path: Path, tag: str) -> None:
    radiograph(tmp_path, NAME, tag)
    with pytest.raises(FlamesError, match="no CT series and no imagesTr"):
        find_sources(tmp_path, "lidc", OPTIONS)
    patient(tmp_path, NAME)
    assert len(find_sources(tmp_path, "lidc", OPTIONS)) == 1


def test_series_and_annotations_must_meet(tmp_path: Path) -> None:
    folder = patient(tmp_path, NAME)
    xml = folder / "068.xml"
    copy = tmp_path / "annotations" / "068.XML"
    copy.parent.mkdir()
    shutil.move(xml, copy)  # the archive also gives all XML in one ZIP
    assert len(find_sources(tmp_path, "lidc", OPTIONS)) == 1
    shutil.copy(copy, xml)
    assert len(find_sources(tmp_path, "lidc", OPTIONS)) == 1
    xml.write_text(message(uid(NAME, "CT", "series", None), [session(IMAGES, NODULE)]))
    with pytest.raises(FlamesError, match="annotate one series, and differ"):
        find_sources(tmp_path, "lidc", OPTIONS)
    xml.write_text(message("1.2.3.4", [session(IMAGES, NODULE)]))
    with pytest.raises(FlamesError, match="annotates a series that is not in the folder"):
        find_sources(tmp_path, "lidc", OPTIONS)
    xml.unlink()
    copy.unlink()
    with pytest.raises(FlamesError, match="no XML of their readers"):
        find_sources(tmp_path, "lidc", OPTIONS)
    radiograph(tmp_path, NAME, "LidcReadMessage")
    with pytest.raises(FlamesError, match="only images of other kinds"):
        find_sources(tmp_path, "lidc", OPTIONS)


def test_slices_that_outlines_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    first, second, *_ = sorted(patient(tmp_path, NAME).glob("*.dcm"))
    shared = pydicom.dcmread(first).SOPInstanceUID
    changed(second, lambda data: setattr(data, "SOPInstanceUID", shared))
    with pytest.raises(FlamesError, match="share a SOPInstanceUID"):
        label(tmp_path)


def test_outlines_must_lie_on_the_series(tmp_path: Path) -> None:
    patient(tmp_path, NAME, [session(IMAGES, [[(17, ring(2, 2, 5, 5), True)]])])
    with pytest.raises(FlamesError, match=r"068\.xml outlines .* not in its series"):
        label(tmp_path)
    patient(tmp_path, NAME, [session(IMAGES, [[(2, ring(2, 2, 12, 5), True)]])])
    with pytest.raises(FlamesError, match="column 12, row 2, its image is 12 x 10"):
        label(tmp_path)


GOOD = message("1.2.3", [session(IMAGES, NODULE)])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<xCoord>2<", "<xCoord>2.5<", "xCoord is '2.5'"),
        ("<yCoord>3</yCoord>", "", "yCoord is ''"),
        ("<inclusion>TRUE<", "<inclusion>maybe<", "inclusion is 'MAYBE'"),
        ("imageSOP_UID", "other", "without imageSOP_UID"),
        ("edgeMap", "other", "roi without a point"),
        ("SeriesInstanceUid", "other", "no SeriesInstanceUid"),
        ("readingSession", "other", "no readingSession"),
        (XML, f'{XML}<!DOCTYPE a [<!ENTITY b "c">]>', "declares a document type"),
        (XML, f'{XML}<!DOCTYPE a SYSTEM "file:///etc/passwd">', "declares a document type"),
        (">anonymous<", ">&who;<", "cannot be read"),
        (">anonymous<", ">" + "<a>" * 60 + "</a>" * 60 + "<", "50 deep"),
        ("</LidcReadMessage>", "", "cannot be read"),
        (GOOD, "", "cannot be read"),
    ],
)
def test_damaged_and_unsafe_xml_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "068.xml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(FlamesError, match=words) as caught:
        read_nodules(path)
    assert str(path) in caught.value.found
    assert caught.value.remedy


def test_entities_are_refused_before_they_grow(tmp_path: Path) -> None:
    path = tmp_path / "laughs.xml"
    grown = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10))
    path.write_text(f'{XML}<!DOCTYPE z [<!ENTITY l0 "ha">{grown}]><z>&l9;</z>')
    with pytest.raises(FlamesError, match="document type"):
        read_nodules(path)


def test_far_too_large_xml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "068.xml"
    path.write_text(GOOD, encoding="utf-8")
    assert read_nodules(path) is not None
    monkeypatch.setattr("flames.data.xml_files.MOST_ELEMENTS", 20)
    with pytest.raises(FlamesError, match="more than 20 elements"):
        read_nodules(path)
    monkeypatch.setattr("flames.data.xml_files.MOST_BYTES", 100)
    with pytest.raises(FlamesError, match="far too large"):
        read_nodules(path)
    with pytest.raises(FlamesError, match="is not there"):
        read_nodules(tmp_path / "no.xml")


def test_spoiled_bytes_give_annotations_or_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "068.xml"
    good, rng = GOOD.encode(), np.random.default_rng(3)
    for _ in range(300):
        spoiled = bytearray(good[: rng.integers(len(good))] if rng.random() < 0.3 else good)
        for at in rng.integers(0, max(1, len(spoiled)), 4):
            spoiled[at : at + 1] = bytes([rng.integers(256)])
        path.write_bytes(spoiled)
        with contextlib.suppress(FlamesError):
            assert isinstance(read_nodules(path), nodules.Readings | None)
