"""What was found as DICOM: a segmentation or a structure set that belongs to the source's series.

Both name the series that they were made from, the model and its version, and lie exactly where the
source lies. They carry the patient of the source, as a viewer needs it: they are for the hospital.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import contourpy
import highdicom as hd
import numpy as np
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

import flames
from flames.data.dicom.headers import open_dataset, quiet
from flames.data.dicom.stacks import Stack
from flames.errors import FlamesError
from flames.inference.outputs import Finding, MadeBy, check_place

CATEGORY = codes.SCT.MorphologicallyAbnormalStructure
TUMOUR = CodedConcept("108369006", "SCT", "Neoplasm")
MAKER = "FLAMES"
USE = "Research use only, not for diagnosis"
COLOUR = (230, 159, 0)
PATIENT_AND_STUDY = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
)


def segmentation(finding: Finding, made_by: MadeBy, *, fractional: bool) -> Dataset:
    """Return the mask as a DICOM segmentation, or with ``fractional`` the probabilities.

    Raises:
        FlamesError: The source is not DICOM, or lacks what a segmentation must repeat of it.
    """
    stack = _stack(finding, "seg")
    sources = [_source(stack, path) for path in stack.paths]
    frames = _frames(finding, finding.probabilities if fractional else finding.mask)
    # highdicom takes the frames of one file in the file's order, which may be from last to first.
    frames = frames[np.argsort([frame.index or 0 for frame in stack.frames], kind="stable")]
    if fractional:
        frames = np.rint(frames * 255) / 255
    described = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Tumour",
        segmented_property_category=CATEGORY,
        segmented_property_type=TUMOUR,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=made_by.name, version=made_by.version or "unknown", source=MAKER,
            family=codes.DCM.ArtificialIntelligence,
        ),
        tracking_uid=hd.UID(),
        tracking_id="Tumour",
    )  # fmt: skip
    described.SegmentDescription = USE
    kind = hd.seg.SegmentationTypeValues
    with quiet():
        try:
            return hd.seg.Segmentation(
                source_images=sources,
                pixel_array=frames.astype(np.float32) if fractional else frames.astype(np.uint8),
                segmentation_type=kind.FRACTIONAL if fractional else kind.BINARY,
                segment_descriptions=[described],
                series_instance_uid=hd.UID(),
                series_number=9001 if fractional else 9000,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=MAKER,
                manufacturer_model_name=made_by.name,
                software_versions=flames.__version__,
                device_serial_number=made_by.version or "unknown",
                content_label="TUMOUR",
                content_description=USE,
                # An object without a frame is not valid: an empty mask keeps its empty frames.
                omit_empty_frames=bool(frames.any()),
            )
        except (AttributeError, KeyError, ValueError, TypeError) as error:
            raise FlamesError(
                f"{finding.input.path} lacks what a segmentation must repeat of it: {error}",
                "write it as --format nifti or png",
            ) from error


def structure_set(finding: Finding, made_by: MadeBy) -> Dataset:
    """Return the outlines of all lesions as one structure ``Tumour``.

    Outlines run half-way between the centres of pixels inside and outside, so that whoever counts
    a pixel by its centre gets the same mask.

    Raises:
        FlamesError: The source is not DICOM, or has no place in the patient.
    """
    stack = _stack(finding, "rtstruct")
    assert stack.affine is not None  # check_place refuses it
    place = np.diag([-1.0, -1.0, 1.0, 1.0]) @ stack.affine
    drawn = Dataset()
    drawn.ReferencedROINumber, drawn.ROIDisplayColor = 1, list(COLOUR)
    drawn.ContourSequence = Sequence(
        [
            _contour(ring, at, place, stack)
            for at, plane in enumerate(_frames(finding, finding.mask))
            for ring in outlines(plane)
        ]
    )
    with quiet():
        data = _begin(_source(stack, stack.paths[0]), made_by)
        data.ROIContourSequence = Sequence([drawn])
        data.StructureSetROISequence = Sequence([_structure(stack, made_by)])
        data.RTROIObservationsSequence = Sequence([_observation()])
        data.ReferencedFrameOfReferenceSequence = Sequence([_reference(stack)])
    return data


def outlines(plane: np.ndarray) -> list[np.ndarray]:
    """Return the closed outlines of a plane mask as ``(N, 2)`` columns and rows.

    >>> [ring.tolist() for ring in outlines(np.array([[0, 0], [0, 1]]))]
    [[[0.5, 1.0], [1.0, 0.5], [1.5, 1.0], [1.0, 1.5]]]
    """
    around = np.pad(plane.astype(float), 1)
    lines = contourpy.contour_generator(z=around).lines(0.5)
    return [np.asarray(line)[:-1] - 1 for line in lines]


def _stack(finding: Finding, name: str) -> Stack:
    check_place(name, finding.scan, finding.input.path)
    assert finding.scan.stack is not None  # check_place refuses it
    return finding.scan.stack


def _source(stack: Stack, path: Any) -> Dataset:
    with quiet():
        data = open_dataset(path, stop_before_pixels=True)
    # Attributes that must be there and may be empty; scanners and exports leave them out.
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID"):
        if keyword not in data:
            setattr(data, keyword, "")
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
        if keyword not in data:
            setattr(data, keyword, None)
    if stack.affine is not None and "FrameOfReferenceUID" not in data:
        raise FlamesError(
            f"{path} has no FrameOfReferenceUID, which a DICOM result must repeat",
            "write it as --format nifti",
        )
    return data


def _frames(finding: Finding, array: np.ndarray) -> np.ndarray:
    """Return an array as ``(frames, rows, columns)`` in the order of the source's frames."""
    placed = finding.scan.grid.place(array)
    if finding.scan.affine is not None:
        return np.ascontiguousarray(placed.transpose(2, 1, 0))
    return placed[None] if placed.ndim == 2 else placed


def _begin(source: Dataset, made_by: MadeBy) -> Dataset:
    now = datetime.now()
    data = Dataset()
    for keyword in PATIENT_AND_STUDY:
        if keyword in source:
            data[keyword] = source[keyword]
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = generate_uid(), 9002, 1
    data.Modality, data.Manufacturer, data.OperatorsName = "RTSTRUCT", MAKER, ""
    data.SeriesDescription = f"{MAKER} {made_by.name}: {USE}"[:64]
    data.ManufacturerModelName = made_by.name
    data.SoftwareVersions = [flames.__version__, made_by.version or "unknown"]
    data.StructureSetLabel, data.StructureSetName = "TUMOUR", "Tumour"
    data.StructureSetDate = data.InstanceCreationDate = now.strftime("%Y%m%d")
    data.StructureSetTime = data.InstanceCreationTime = now.strftime("%H%M%S")
    data.ApprovalStatus = "UNAPPROVED"
    return data


def _contour(ring: np.ndarray, at: int, place: np.ndarray, stack: Stack) -> Dataset:
    index = np.column_stack([ring, np.full(len(ring), at), np.ones(len(ring))])
    points = (index @ place.T)[:, :3]
    one, image = Dataset(), Dataset()
    image.ReferencedSOPClassUID = stack.frames[at].sop_class
    image.ReferencedSOPInstanceUID = stack.frames[at].instance
    if stack.frames[at].index is not None:
        image.ReferencedFrameNumber = (stack.frames[at].index or 0) + 1
    one.ContourImageSequence = Sequence([image])
    one.ContourGeometricType = "CLOSED_PLANAR"
    one.NumberOfContourPoints = len(points)
    one.ContourData = [f"{value:.4f}" for value in points.ravel()]
    return one


def _structure(stack: Stack, made_by: MadeBy) -> Dataset:
    one = Dataset()
    one.ROINumber, one.ROIName = 1, "Tumour"
    one.ReferencedFrameOfReferenceUID = stack.frame_of_reference
    one.ROIGenerationAlgorithm = "AUTOMATIC"
    one.ROIGenerationDescription = f"{MAKER} {made_by.name} {made_by.version}"[:64]
    return one


def _observation() -> Dataset:
    one = Dataset()
    one.ObservationNumber = one.ReferencedROINumber = 1
    one.RTROIInterpretedType, one.ROIInterpreter = "", ""
    return one


def _reference(stack: Stack) -> Dataset:
    series, study, frame = Dataset(), Dataset(), Dataset()
    images = []
    for instance in dict.fromkeys(one.instance for one in stack.frames):
        image = Dataset()
        image.ReferencedSOPClassUID = stack.frames[0].sop_class
        image.ReferencedSOPInstanceUID = instance
        images.append(image)
    series.SeriesInstanceUID = stack.series
    series.ContourImageSequence = Sequence(images)
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = stack.study
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID = stack.frame_of_reference
    frame.RTReferencedStudySequence = Sequence([study])
    return frame
