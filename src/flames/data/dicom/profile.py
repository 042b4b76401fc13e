"""Which DICOM attributes can identify a person: the basic profile of PS3.15, table E.1-1.

A store takes numbers only from attributes that the profile leaves alone (`GEOMETRY`). Identifiers
are compared in memory, or become keyed hashes; their values are never written.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag, Tag

GEOMETRY = (
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "InstanceNumber",
    "RescaleSlope",
    "RescaleIntercept",
    "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""What decides arrays and their place, or says that slices are missing; of the sequences only
positions, spacings and scales."""
IDENTIFIERS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
)
"""What is compared or hashed in memory."""


@cache
def basic_profile() -> dict[BaseTag, str]:
    """Return what the profile does with each attribute that it names.

    >>> basic_profile()[Tag("PatientID")], Tag("PixelSpacing") in basic_profile()
    ('Z/D', False)
    """
    text = files("flames.data.dicom").joinpath("profile.txt").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {Tag(int(tag, 16)): action for action, *tags in rows for tag in tags}


def can_identify(tag: BaseTag) -> bool:
    """Return whether the profile removes or replaces an attribute.

    >>> can_identify(Tag(0x00091001)), can_identify(Tag("Rows"))  # a private one
    (True, False)
    """
    curve = tag.group & 0xFF00 == 0x5000
    overlay = tag.group & 0xFF00 == 0x6000 and tag.element in (0x3000, 0x4000)
    return tag.is_private or curve or overlay or tag in basic_profile()


def header_tags() -> list[int]:
    """Return the attributes that are read from a file at all, its pixels aside."""
    keywords = (*GEOMETRY, *IDENTIFIERS)
    return [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]
