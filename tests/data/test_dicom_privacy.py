"""Nothing that can identify a person is in a store made of DICOM, whatever the files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import contours, rectangle, series, volume, write
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from flames.data.dicom.keys import load_key, pseudonym
from flames.data.dicom.profile import (
    GEOMETRY,
    IDENTIFIERS,
    basic_profile,
    can_identify,
    header_tags,
)
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.errors import FlamesError

MARK = "ZEUGE"
"""A word that stands in every attribute of text, and in every path."""
TEXT = {"SH", "LO", "ST", "LT", "UT", "PN", "UC", "CS", "AE", "UR"}
RINGS = {f"GTV {MARK}": [(2, rectangle(2.5, 3.5, 6.5, 7.5))]}


def spoken(tag: Tag) -> object | None:
    """Return a value with the mark in it, where the kind of the attribute allows one."""
    kind = dictionary_VR(tag).split(" or ")[0]
    if kind in TEXT:
        return f"{MARK}{tag.element}"[:16]
    return {"DA": "19770707", "DT": "19770707", "TM": "070707", "AS": "077Y"}.get(kind)


def identified(folder: Path, patient: str) -> None:
    """Write a series with a label, with every attribute that the profile names filled in."""
    place = folder / f"{MARK}-{patient}"
    for path in series(place / "i", volume(), patient=patient):
        data = pydicom.dcmread(path)
        inner = Dataset()
        for tag in basic_profile():
            if keyword_for_tag(tag) and tag not in data and tag.group > 2:
                value = spoken(tag)
                if value is not None:
                    data.add_new(tag, dictionary_VR(tag).split(" or ")[0], value)
                    inner.add_new(tag, dictionary_VR(tag).split(" or ")[0], value)
        data.OtherPatientIDsSequence = Sequence([inner])
        block = data.private_block(0x0009, MARK, create=True)
        block.add_new(1, "LO", f"{MARK} private")
        data.PatientName, data.PatientID = f"{MARK}^{patient}", f"{MARK}{patient}"
        write(path, data)
    files = sorted((place / "i").iterdir())
    contours(place / "rs.dcm", files, RINGS, patient=f"{MARK}{patient}")


@pytest.fixture(scope="module")
def store_bytes(tmp_path_factory) -> tuple[Path, bytes]:
    root = tmp_path_factory.mktemp("private")
    for patient in "ABC":
        identified(root / "source", patient)
    options = SourceOptions(roi="GTV.*", key=b"k" * 32)
    request = StoreRequest("dicom", "north", "CT", "limb", options=options)
    add_store(root / "source", root / "store", request)
    files = [p for p in (root / "store").rglob("*") if p.is_file()]
    names = "\n".join(str(p.relative_to(root)) for p in files).encode()
    return root, b"\n".join([names, *(p.read_bytes() for p in files)])


def test_no_name_no_date_and_no_identifier_is_in_a_store(store_bytes):
    root, content = store_bytes
    assert MARK.encode() not in content
    assert b"19770707" not in content
    one = pydicom.dcmread(next((root / "source").rglob("*.dcm")))
    assert MARK in str(one.PatientName)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert str(one.get(keyword)).encode() not in content
    assert (b"k" * 32) not in content


def test_many_attributes_of_the_profile_were_there_to_be_dropped(store_bytes):
    root, _ = store_bytes
    one = pydicom.dcmread(next((root / "source").rglob("*-A.dcm")))
    assert sum(can_identify(element.tag) for element in one) > 300


def test_patients_are_told_apart_by_hashes(store_bytes):
    root, _ = store_bytes
    from flames.data.store import SiteStore

    cases = SiteStore.open(root / "store").info.cases
    expected = {pseudonym(b"k" * 32, "patient", f"{MARK}{p}") for p in "ABC"}
    assert {case.patient_id for case in cases} == expected
    assert all(case.sources == () and case.hospital is None for case in cases)


def test_geometry_is_what_the_profile_leaves():
    assert not [keyword for keyword in GEOMETRY if can_identify(Tag(keyword))]
    assert len(basic_profile()) > 600
    for keyword in ("PatientName", "PatientBirthDate", "InstitutionName", "SeriesDescription"):
        assert can_identify(Tag(keyword))
    for tag in (0x00091001, 0x50000010, 0x60003000):
        assert can_identify(Tag(tag))
    assert not can_identify(Tag("PixelData"))
    assert len(header_tags()) == len(GEOMETRY) + len(IDENTIFIERS)


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path):
    path = tmp_path / "new" / "site.key"
    key = load_key(path)
    assert (len(key), load_key(path)) == (32, key)
    assert path.stat().st_mode & 0o077 == 0
    assert load_key(tmp_path / "other.key") != key


@pytest.mark.parametrize("content", ["", "no key", "abcd"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "site.key"
    path.write_text(content)
    with pytest.raises(FlamesError, match=r"site\.key") as caught:
        load_key(path)
    assert "--key" in caught.value.remedy


def test_hashes_do_not_join_kinds():
    key = np.arange(32, dtype=np.uint8).tobytes()
    assert pseudonym(key, "patient", "1") != pseudonym(key, "series", "1")
    assert pseudonym(key, "patient", "1") == pseudonym(key, "patient", "1")
