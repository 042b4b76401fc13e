"""Made-up DICOM files: series of any geometry, contours, ultrasound, all with a patient's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

STORAGE = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
}
STRAIGHT = (1.0, 0, 0, 0, 1, 0)
OBLIQUE = tuple(np.round([*(np.array([0.8, 0.6, 0])), *(np.array([-0.36, 0.48, 0.8]))], 6))


def uid(*parts: object) -> str:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def dataset(modality: str, patient: str, **elements: Any) -> Dataset:
    data = Dataset()
    data.SOPClassUID = STORAGE[modality]
    data.SOPInstanceUID = uid(patient, modality, sorted(elements.items(), key=str))
    data.Modality = modality
    data.PatientID, data.PatientName = patient, f"{patient}^Name"
    data.PatientBirthDate, data.PatientSex = "19500101", "O"
    data.StudyInstanceUID, data.StudyDate, data.StudyTime = (
        uid(patient, "study"),
        "20200101",
        "1200",
    )
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "A1", "Doc^Tor"
    data.SeriesInstanceUID = uid(patient, modality, "series")
    data.SeriesNumber, data.InstanceNumber, data.Manufacturer = 1, 1, "Maker"
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def write(path: Path, data: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def pixels(data: Dataset, array: np.ndarray, *, signed: bool = True) -> Dataset:
    data.SamplesPerPixel = 1 if array.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if array.ndim == 2 else "RGB"
    if array.ndim == 3:
        data.PlanarConfiguration = 0
    data.Rows, data.Columns = array.shape[:2]
    bits = 8 * array.dtype.itemsize
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit = bits - 1
    data.PixelRepresentation = int(signed and bits == 16)
    data.PixelData = array.tobytes()
    return data


def volume(shape: tuple[int, int, int] = (6, 10, 12)) -> np.ndarray:
    """Return slices, rows, columns of numbers that tell each voxel apart."""
    return np.random.default_rng(5).integers(0, 2000, shape, dtype=np.int16)


def series(
    folder: Path,
    array: np.ndarray | None = None,
    *,
    patient: str = "P1",
    modality: str = "CT",
    orientation: tuple[float, ...] = STRAIGHT,
    spacing: tuple[float, float, float] = (0.7, 0.9, 3.0),
    intercept: float = -1024,
    shear: float = 0.0,
    heights: list[float] | None = None,
    series: str | None = None,
    **elements: Any,
) -> list[Path]:
    """Write a series with shuffled names; ``spacing`` is between rows, columns and slices."""
    array = volume() if array is None else array
    turn = np.array(orientation).reshape(2, 3)
    normal = np.cross(turn[0], turn[1])
    written = []
    for k, plane in enumerate(array):
        height = heights[k] if heights else k * spacing[2]
        place = np.array([-30.0, 20, 100]) + normal * height + turn[1] * shear * height
        data = dataset(
            modality,
            patient,
            SOPInstanceUID=uid(patient, modality, series, k),
            SeriesInstanceUID=uid(patient, modality, "series", series),
            FrameOfReferenceUID=uid(patient, "frame"),
            ImagePositionPatient=[round(float(v), 6) for v in place],
            ImageOrientationPatient=list(orientation),
            PixelSpacing=list(spacing[:2]),
            SliceThickness=spacing[2],
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            **elements,
        )
        if modality == "CT":
            data.RescaleSlope, data.RescaleIntercept = 1, intercept
        name = f"{(k * 7) % len(array):03d}-{patient}.dcm"
        written.append(write(folder / name, pixels(data, plane)))
    return written


def contours(
    path: Path,
    images: list[Path],
    rings: dict[str, list[tuple[int, list[tuple[float, float]]]]],
    *,
    patient: str = "P1",
    refer: bool = True,
) -> Path:
    """Write an RTSTRUCT: of each structure, rings as slice number and (column, row) points."""
    headers = sorted(
        (pydicom.dcmread(p) for p in images),
        key=lambda d: np.dot(
            np.cross(d.ImageOrientationPatient[:3], d.ImageOrientationPatient[3:]),
            d.ImagePositionPatient,
        ),
    )
    first = headers[0]
    data = dataset("RTSTRUCT", patient, SOPInstanceUID=uid(path, "rs"))
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "set", "20200101", "12"
    data.StructureSetROISequence, data.ROIContourSequence = Sequence(), Sequence()
    if refer:
        one, study, frame = Dataset(), Dataset(), Dataset()
        one.SeriesInstanceUID = first.SeriesInstanceUID
        study.RTReferencedSeriesSequence = Sequence([one])
        frame.FrameOfReferenceUID = first.FrameOfReferenceUID
        frame.RTReferencedStudySequence = Sequence([study])
        data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    for number, (name, parts) in enumerate(rings.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        roi.ROIGenerationAlgorithm = "MANUAL"
        drawn.ReferencedROINumber, drawn.ContourSequence = number, Sequence()
        for at, points in parts:
            on = headers[at]
            turn = np.array(on.ImageOrientationPatient, float).reshape(2, 3)
            scale = np.array([on.PixelSpacing[1], on.PixelSpacing[0]], float)
            places = np.array(on.ImagePositionPatient, float) + (np.array(points) * scale) @ turn
            ring = Dataset()
            ring.ContourGeometricType = "CLOSED_PLANAR"
            ring.NumberOfContourPoints = len(points)
            ring.ContourData = [round(float(v), 5) for v in places.ravel()]
            drawn.ContourSequence.append(ring)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    return write(path, data)


def changed(path: Path, change: Callable[[Dataset], object]) -> Path:
    """Write a file again, as ``change`` leaves it."""
    data = pydicom.dcmread(path)
    change(data)
    return write(path, data)


def bare(path: Path, how: str) -> Path:
    """Write a file again without its preamble and without an ending, as older programs do."""
    data, out = pydicom.dcmread(path), path.with_suffix("")
    if how == "with meta group":
        out.write_bytes(path.read_bytes()[132:])
    else:
        if how == "big" and "PixelData" in data:
            data["PixelData"].value = np.frombuffer(data.PixelData, "<i2").byteswap().tobytes()
        plain = {"implicit_vr": how == "implicit", "little_endian": how != "big"}
        del data.file_meta
        pydicom.dcmwrite(out, Dataset(data), **plain)
    path.unlink()
    return out


def segmentation(path: Path, images: list[Path], planes: dict[int, np.ndarray]) -> Path:
    """Write a SEG with one segment: ``(rows, columns)`` of 0 and 1 by image."""
    headers = [pydicom.dcmread(images[at]) for at in planes]
    first, segment, series = headers[0], Dataset(), Dataset()
    data = dataset("SEG", "P1", SOPInstanceUID=uid(path), FrameOfReferenceUID=uid("P1", "frame"))
    segment.SegmentNumber, segment.SegmentLabel = 1, "GTV"
    series.SeriesInstanceUID = first.SeriesInstanceUID
    data.SegmentSequence, data.ReferencedSeriesSequence = Sequence([segment]), Sequence([series])
    data.SegmentationType, data.MaximumFractionalValue = "FRACTIONAL", 1
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, turn.ImageOrientationPatient = (
        first.PixelSpacing,
        first.ImageOrientationPatient,
    )
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence()
    for header in headers:
        group, identity, place = Dataset(), Dataset(), Dataset()
        identity.ReferencedSegmentNumber = 1
        place.ImagePositionPatient = header.ImagePositionPatient
        group.SegmentIdentificationSequence, group.PlanePositionSequence = [identity], [place]
        data.PerFrameFunctionalGroupsSequence.append(group)
    pixels(data, next(iter(planes.values())))
    data.NumberOfFrames = len(planes)
    data.PixelData = b"".join(plane.tobytes() for plane in planes.values())
    return write(path, data)


def rectangle(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
