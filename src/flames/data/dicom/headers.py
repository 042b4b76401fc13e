"""DICOM files become frames: where each one lies, and to which series and patient it belongs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import VR

from flames.config import MODALITIES
from flames.data.dicom.profile import header_tags
from flames.data.pictures import reading
from flames.data.walking import files_below
from flames.errors import FlamesError

LABEL_MODALITIES = ("RTSTRUCT", "SEG")
MAGIC = 128
START = 512
"""Bytes that are looked at to tell what a file is."""
CLASS_ELEMENT = 0x16
KINDS = {kind.value.encode() for kind in VR}
PLAIN_SYNTAXES = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""By whether elements do not say their kinds, and whether the least byte comes first."""


@dataclass(frozen=True)
class Frame:
    """One plane of pixels."""

    path: Path
    index: int | None
    """Number in a file of several frames, from 0."""
    sop_class: str
    instance: str
    rows: int
    columns: int
    position: tuple[float, ...] | None
    """Centre of the first pixel, LPS millimetres."""
    orientation: tuple[float, ...] | None
    """Direction of a row, then of a column."""
    spacing: tuple[float, float] | None
    """Between rows, between columns, mm."""
    thickness: float | None
    """Of the slice, mm."""
    between: float | None = None
    """Distance to the next slice as the file says it, mm."""
    number: int | None = None
    """InstanceNumber of a file with one frame."""


@dataclass(frozen=True)
class Header:
    """What one image file says of itself."""

    path: Path
    modality: str
    series: str
    study: str
    patient: str
    frame_of_reference: str | None
    frames: tuple[Frame, ...]
    multiframe: bool

    @property
    def group(self) -> str:
        """Return what belongs together: a series with places, else each file for itself."""
        placed = any(frame.position is not None for frame in self.frames)
        alone = self.multiframe or (self.modality == "US" and not placed)
        return self.frames[0].instance or str(self.path) if alone else self.series


@contextmanager
def quiet() -> Iterator[None]:
    """Hush pydicom's remarks on values that are out of form and are read all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_dataset(path: Path, *, header: bool = False) -> Dataset:
    """Return a DICOM file, or with ``header`` only what `header_tags` lists.

    Raises:
        FlamesError: The file is damaged or not DICOM.
    """
    with reading(path), quiet():
        tags: Any = header_tags() if header else None
        return open_dataset(path, stop_before_pixels=header, specific_tags=tags)


def open_dataset(path: Path, **how: Any) -> Dataset:
    """Return what `pydicom.dcmread` does, of a file without preamble too."""
    try:
        return pydicom.dcmread(path, **how)
    except InvalidDicomError:
        if not begins_bare(_start(path)):
            raise
    data = pydicom.dcmread(path, force=True, **how)
    implicit, little = data.original_encoding
    if "TransferSyntaxUID" not in data.file_meta:
        data.file_meta.TransferSyntaxUID = PLAIN_SYNTAXES[implicit is True, little is True]
    return data


def looks_like_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM does, or is named ``.dcm``."""
    start = _start(path)
    named = path.suffix.lower() in (".dcm", ".dicom")
    return start[MAGIC : MAGIC + 4] == b"DICM" or named or begins_bare(start)


def begins_bare(start: bytes) -> bool:
    """Return whether bytes are the first elements of DICOM without its 128 bytes of preamble.

    Older programs write such files. The first element is of group 2 or 8, and the class of the
    object, which every file has, is (0008,0016).

    >>> begins_bare(bytes.fromhex("0800050043530a00")), begins_bare(b"a text")
    (True, False)
    """
    for order in ("little", "big"):
        group, element = (int.from_bytes(start[at : at + 2], order) for at in (0, 2))
        if group not in (2, 8) or element > CLASS_ELEMENT:
            continue
        if start[4:6] in KINDS:
            return True
        # Where an element does not say its kind, it says only its length: the next one lies there.
        after = start[8 + int.from_bytes(start[4:8], "little") :][:4]
        if order == "little" and after[:2] == start[:2] and after[2:4] > start[2:4]:
            return True
    return False


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(START)
    except OSError as error:
        raise FlamesError(
            f"cannot read {path}: {error.strerror}", "check that the file is there and readable"
        ) from error


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files below ``folder``; index files and others are passed over.

    Raises:
        FlamesError: Something cannot be read, or an empty file stands beside DICOM files.
    """
    return dicom_among(files_below(folder))


def dicom_among(paths: Iterable[Path]) -> list[Path]:
    """Return the DICOM files among ``paths``; index files and others are passed over.

    Raises:
        FlamesError: A file cannot be read, or an empty one stands beside DICOM files.
    """
    found, empty = [], []
    for path in paths:
        if path.name.upper() == "DICOMDIR":
            continue
        if looks_like_dicom(path):
            found.append(path)
        elif path.stat().st_size == 0:
            empty.append(path)
    folders = {path.parent for path in found}
    for path in empty:
        if path.parent in folders:
            raise FlamesError(
                f"{path} is empty and stands beside DICOM files: it may be a slice that was not "
                "copied",
                "copy it again from the archive, or take it away",
            )
    return found


def read_header(path: Path) -> Header | Dataset | None:
    """Return an image's header, the dataset of a label file, or None for anything else.

    Raises:
        FlamesError: The file is damaged.
    """
    data = read_dataset(path, header=True)
    # pydicom reads values only when they are asked for: a damaged one shows here.
    with reading(path), quiet():
        if "Modality" not in data and "SOPClassUID" not in data:
            raise FlamesError(
                f"{path} cannot be read: it begins or is named as DICOM, and does not say what it "
                "is",
                "copy the file again from the archive, or take it away",
            )
        modality = str(data.get("Modality", ""))
        if modality in LABEL_MODALITIES:
            return read_dataset(path)
        if modality not in MODALITIES or "Rows" not in data:
            return None
        return _image(path, data, modality)


def _image(path: Path, data: Dataset, modality: str) -> Header:
    count = int(data.get("NumberOfFrames") or 1)
    grouped = "PerFrameFunctionalGroupsSequence" in data
    several = count > 1 or grouped
    frames = []
    for index in range(count):
        where = Groups(data, index) if grouped else data
        frames.append(
            Frame(
                path=path,
                index=index if several else None,
                sop_class=str(data.get("SOPClassUID", "")),
                instance=str(data.get("SOPInstanceUID", "")),
                rows=int(data.Rows),
                columns=int(data.Columns),
                position=_floats(where.get("ImagePositionPatient"), 3),
                orientation=_floats(where.get("ImageOrientationPatient"), 6),
                spacing=_spacing(where, data),
                thickness=_length(where.get("SliceThickness")),
                between=_length(where.get("SpacingBetweenSlices")),
                number=None if several else _instance_number(data),
            )
        )
    reference = data.get("FrameOfReferenceUID")
    # Spaces around a value say nothing (PS3.5, table 6.2-1): " P1" is the patient "P1".
    patient = str(data.get("PatientID") or "").strip() or str(data.get("PatientName") or "").strip()
    return Header(
        path=path,
        modality=modality,
        series=str(data.get("SeriesInstanceUID") or path),
        study=str(data.get("StudyInstanceUID") or ""),
        patient=patient,
        frame_of_reference=str(reference) if reference else None,
        frames=tuple(frames),
        multiframe=several,
    )


class Groups:
    """Attributes of one frame of an enhanced object: its own groups, then the shared ones."""

    def __init__(self, data: Dataset, index: int) -> None:
        own = data.PerFrameFunctionalGroupsSequence
        if index >= len(own):
            raise ValueError(f"frame {index + 1} has no functional groups")
        shared = data.get("SharedFunctionalGroupsSequence") or []
        self.items = [own[index], *shared[:1]]

    def get(self, keyword: str) -> Any:
        """Return an attribute of the first group that has it, or None."""
        for group in self.items:
            for element in group:
                if element.VR == "SQ" and element.value and keyword in element.value[0]:
                    return element.value[0].get(keyword)
        return None


def _spacing(where: Any, data: Dataset) -> tuple[float, float] | None:
    pair = _floats(where.get("PixelSpacing"), 2)
    if pair is not None:
        return (pair[0], pair[1]) if min(pair) > 0 else None
    # Ultrasound says it a region, in centimetres (unit 3); the largest region counts.
    regions = [
        r
        for r in data.get("SequenceOfUltrasoundRegions") or []
        if r.get("PhysicalUnitsXDirection") == 3 and r.get("PhysicalUnitsYDirection") == 3
    ]
    largest = max(regions, key=_region_area, default=None)
    if largest is None:
        return None
    across, down = (
        abs(float(largest.get(k) or 0)) * 10 for k in ("PhysicalDeltaX", "PhysicalDeltaY")
    )
    return (down, across) if min(across, down) > 0 else None


def _region_area(region: Dataset) -> float:
    x0, x1 = region.get("RegionLocationMinX0", 0), region.get("RegionLocationMaxX1", 0)
    y0, y1 = region.get("RegionLocationMinY0", 0), region.get("RegionLocationMaxY1", 0)
    return float((x1 - x0) * (y1 - y0))


def _floats(value: Any, count: int) -> tuple[float, ...] | None:
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    return tuple(float(v) for v in value)


def _length(value: Any) -> float | None:
    return abs(float(value)) if value not in (None, "") else None


def _instance_number(data: Dataset) -> int | None:
    try:
        return int(data.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return None  # it decides nothing, so a file may do without
