"""LIDC-IDRI: the nodules that up to four readers outlined in a CT become one mask.

A reader's outline is the first pixel outside the nodule: its own pixels are not tumour, what it
encloses is (Armato et al., Medical Physics 2011, 10.1118/1.3528204). A region of exclusion is taken
away with its outline. Nodules below 3 mm are single points and enclose nothing.

A pixel is tumour where at least half of the readers drew it, two of four: the usual consensus of
50 %, which pylidc takes too (Hancock and Magnan, J Med Imaging 2016, 10.1117/1.JMI.3.4.044504).
There it is half of those who drew the nodule, here half of all who read the scan: a reader who drew
nothing says that there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from flames.data.dicom.contours import inside
from flames.data.dicom.stacks import Stack
from flames.data.xml_files import read_xml
from flames.errors import FlamesError

ROOT = "LidcReadMessage"
"""Of the annotations of a CT; those of chest radiographs have another root."""
EDGES = 3
"""Points of the smallest outline that can enclose anything."""


@dataclass(frozen=True)
class Outline:
    """One closed line on one slice."""

    instance: str
    """The image that it was drawn on."""
    points: tuple[tuple[int, int], ...]
    """Column and row, from 0; the last joins the first."""
    hole: bool
    """True where it outlines what does not belong to the nodule."""


Nodule = tuple[Outline, ...]


@dataclass(frozen=True)
class Readings:
    """What all readers of one CT outlined."""

    series: str
    readers: tuple[tuple[Nodule, ...], ...]
    """The nodules of each reader; empty where one saw none of 3 mm or more."""


def read_nodules(path: Path) -> Readings | None:
    """Return the annotations of a CT, or None for XML of another kind.

    Raises:
        FlamesError: The file is damaged, unsafe, or lacks what an outline needs.
    """
    root = read_xml(path)
    if root.tag != ROOT:
        return None
    header = root.find("ResponseHeader")
    series = "" if header is None else _text(header, "SeriesInstanceUid")
    if not series:
        raise _incomplete(path, "no SeriesInstanceUid: it does not say which series was read")
    readers = tuple(
        tuple(_nodule(one, path) for one in session.findall("unblindedReadNodule"))
        for session in root.findall("readingSession")
    )
    if not readers:
        raise _incomplete(path, "no readingSession: nobody says what is tumour")
    return Readings(series, readers)


def nodule_mask(readings: Readings, *, stack: Stack, path: Path) -> np.ndarray:
    """Return where at least half of the readers drew a nodule, ``(columns, rows, slices)`` uint8.

    Args:
        readings: What they drew.
        stack: The series that they read.
        path: Of the annotations, for errors.

    Raises:
        FlamesError: An outline is on a slice that the series lacks, or outside of its image, or
            slices share the identifier by which an outline names its own.
    """
    at = {frame.instance: number for number, frame in enumerate(stack.frames)}
    if len(at) < len(stack.frames):
        raise FlamesError(
            f"slices of the series of {stack.paths[0]} share a SOPInstanceUID, by which {path} "
            "names them",
            "copy the series again from the archive",
        )
    votes: dict[int, np.ndarray] = {}
    for nodules in readings.readers:
        for number, drawn in _drawn(nodules, at, stack.shape[:2], path).items():
            votes[number] = votes.get(number, np.uint16(0)) + drawn.astype(np.uint16)
    mask = np.zeros(stack.shape, np.uint8)
    for number, count in votes.items():
        mask[:, :, number] = 2 * count >= len(readings.readers)
    return mask


def enclosed(outlines: Iterable[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels of one nodule on one slice, ``(columns, rows)`` bool.

    >>> ring = ((1, 1), (1, 4), (4, 4), (4, 1))  # from 1 to 4: 2 x 2 pixels lie within
    >>> enclosed([Outline("1.2", ring, False)], (6, 6)).sum()
    np.int64(4)
    """
    found, holes = np.zeros(shape, bool), np.zeros(shape, bool)
    for outline in outlines:
        points = np.array(outline.points)
        within, line = inside(points, shape), _line(outline.points, shape)
        if outline.hole:
            holes |= within | line
        else:
            found |= within & ~line
    return found & ~holes


def _drawn(
    nodules: Iterable[Nodule], at: dict[str, int], shape: tuple[int, int], path: Path
) -> dict[int, np.ndarray]:
    """Return what one reader drew, by slice."""
    found: dict[int, np.ndarray] = {}
    for nodule in nodules:
        by_slice: dict[int, list[Outline]] = {}
        for outline in nodule:
            _check_place(outline, at, shape, path)
            by_slice.setdefault(at[outline.instance], []).append(outline)
        for number, outlines in by_slice.items():
            one = enclosed(outlines, shape)
            found[number] = found[number] | one if number in found else one
    return found


def _check_place(outline: Outline, at: dict[str, int], shape: tuple[int, int], path: Path) -> None:
    if outline.instance not in at:
        raise FlamesError(
            f"{path} outlines a nodule on an image that is not in its series",
            "copy the missing slices of the series, or the XML again",
        )
    for column, row in outline.points:
        if not (0 <= column < shape[0] and 0 <= row < shape[1]):
            raise FlamesError(
                f"{path} has a point at column {column}, row {row}, its image is {shape[0]} x "
                f"{shape[1]} (columns x rows)",
                "copy the XML and its series again from the archive",
            )


def _line(points: tuple[tuple[int, int], ...], shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres are on a closed line."""
    found = np.zeros(shape, bool)
    for (column, row), (to_column, to_row) in zip(points, (*points[1:], points[0]), strict=True):
        across, down = to_column - column, to_row - row
        steps = gcd(across, down) or 1
        for step in range(steps):
            found[column + step * across // steps, row + step * down // steps] = True
    return found


def _nodule(element: Element, path: Path) -> Nodule:
    outlines = (_outline(roi, path) for roi in element.findall("roi"))
    return tuple(one for one in outlines if one.hole or len(one.points) >= EDGES)


def _outline(roi: Element, path: Path) -> Outline:
    instance, inclusion = _text(roi, "imageSOP_UID"), _text(roi, "inclusion").upper()
    if not instance:
        raise _incomplete(path, "a roi without imageSOP_UID: it does not say on which image")
    if inclusion not in ("TRUE", "FALSE"):
        raise _incomplete(path, f"a roi whose inclusion is {inclusion!r}, neither TRUE nor FALSE")
    points = tuple(
        (_number(edge, "xCoord", path), _number(edge, "yCoord", path))
        for edge in roi.findall("edgeMap")
    )
    if not points:
        raise _incomplete(path, "a roi without a point")
    return Outline(instance, points, hole=inclusion == "FALSE")


def _number(edge: Element, name: str, path: Path) -> int:
    text = _text(edge, name)
    try:
        return int(text)
    except ValueError as error:
        raise _incomplete(path, f"an edgeMap whose {name} is {text!r}, no pixel") from error


def _text(element: Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _incomplete(path: Path, what: str) -> FlamesError:
    return FlamesError(f"{path} has {what}", "copy the XML again from the archive")
