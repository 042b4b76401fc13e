"""RTSTRUCT: the contours of a planning system become a mask on the slices that they were drawn on.

A pixel is inside when its centre is. Contours of one structure on one slice combine by exclusive
or, so that an inner ring is a hole (CLOSED_PLANAR and CLOSED_PLANAR_XOR); structures by or.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from flames.data.dicom.headers import quiet
from flames.data.pictures import reading
from flames.errors import FlamesError

CLOSED = ("CLOSED_PLANAR", "CLOSED_PLANAR_XOR", "CLOSEDPLANAR_XOR")
OFF_PLANE = 0.5
"""Share of the slice distance by which a contour may lie off its slice."""


def structure_names(data: Dataset) -> dict[int, str]:
    """Return the names of the structures by number."""
    return {
        int(one.ROINumber): str(one.get("ROIName", ""))
        for one in data.get("StructureSetROISequence") or []
    }


def referenced_series(data: Dataset) -> set[str]:
    """Return the series that a structure set says it was drawn on."""
    return {
        str(series.SeriesInstanceUID)
        for frame in data.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
        if series.get("SeriesInstanceUID")
    }


def frames_of_reference(data: Dataset) -> set[str]:
    """Return the frames of reference of a structure set."""
    named = {
        str(one.ReferencedFrameOfReferenceUID)
        for one in data.get("StructureSetROISequence") or []
        if one.get("ReferencedFrameOfReferenceUID")
    }
    return named | {
        str(one.FrameOfReferenceUID)
        for one in data.get("ReferencedFrameOfReferenceSequence") or []
        if one.get("FrameOfReferenceUID")
    }


def chosen(names: dict[int, str], roi: str | None, path: Path) -> list[int]:
    """Return the numbers of the structures that ``roi`` means.

    Args:
        names: Structures by number.
        roi: A regular expression for the whole name, upper and lower case alike; None where there
            is only one.
        path: Of the label, for errors.

    Raises:
        FlamesError: None fits, or several are there and nothing was said.
    """
    known = ", ".join(sorted(map(repr, names.values()))) or "none"
    if roi is None:
        if len(names) != 1:
            raise FlamesError(
                f"{path} has {len(names)} structures: {known}",
                "say which are tumour with --roi, a regular expression such as 'GTV.*'",
            )
        return list(names)
    fitting = [n for n, name in names.items() if re.fullmatch(roi, name.strip(), re.IGNORECASE)]
    if not fitting:
        raise FlamesError(
            f"{path} has no structure that --roi {roi!r} fits, only {known}",
            "widen the regular expression, or take the file away",
        )
    return fitting


def contour_mask(
    data: Dataset, numbers: Iterable[int], *, shape: tuple[int, int, int], affine: np.ndarray,
    path: Path,
) -> np.ndarray:  # fmt: skip
    """Return the mask of structures, ``(columns, rows, slices)`` uint8.

    Args:
        data: The structure set.
        numbers: Which of its structures.
        shape: Of the image.
        affine: Of the image, to RAS.
        path: Of the structure set, for errors.

    Raises:
        FlamesError: A contour lies between the slices or outside of all of them, or is damaged.
    """
    wanted = set(numbers)
    total = np.zeros(shape, np.uint8)
    to_index = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    with reading(path), quiet():
        for structure in data.get("ROIContourSequence") or []:
            if int(structure.ReferencedROINumber) not in wanted:
                continue
            mask = np.zeros(shape, bool)
            for contour in structure.get("ContourSequence") or []:
                if str(contour.get("ContourGeometricType", "")) in CLOSED:
                    _draw(mask, _points(contour, path), to_index, path)
            total |= mask.astype(np.uint8)
    return total


def inside(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which pixel centres of ``shape`` lie inside a polygon, bool.

    Args:
        points: ``(N, 2)`` in the array's own indices; the last joins the first.
        shape: Of the array.

    >>> inside(np.array([[0.5, 0.5], [0.5, 2.5], [2.5, 2.5], [2.5, 0.5]]), (4, 4)).sum()
    np.int64(4)
    """
    found = np.zeros(shape, bool)
    first, second = points, np.roll(points, -1, axis=0)
    low = max(0, int(np.ceil(points[:, 0].min())))
    high = min(shape[0] - 1, int(np.floor(points[:, 0].max())))
    columns = np.arange(shape[1])
    for row in range(low, high + 1):
        crosses = (first[:, 0] <= row) != (second[:, 0] <= row)
        one, two = first[crosses], second[crosses]
        at = one[:, 1] + (row - one[:, 0]) / (two[:, 0] - one[:, 0]) * (two[:, 1] - one[:, 1])
        # Inside where an odd number of edges lies to the left.
        found[row] = np.searchsorted(np.sort(at), columns, side="right") % 2 == 1
    return found


def _points(contour: Any, path: Path) -> np.ndarray:
    values: Sequence[Any] = contour.get("ContourData") or []
    if len(values) % 3 or not len(values):
        raise FlamesError(
            f"{path} has a contour of {len(values)} numbers, not three a point",
            "export the structure set again",
        )
    points = np.array([float(v) for v in values]).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise FlamesError(
            f"{path} has a contour with a point that is not finite",
            "export the structure set again",
        )
    return points


def _draw(mask: np.ndarray, points: np.ndarray, to_index: np.ndarray, path: Path) -> None:
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    heights = index[:, 2]
    at = round(float(np.median(heights)))
    if np.abs(heights - at).max() > OFF_PLANE + 1e-6:
        raise FlamesError(
            f"{path} has a contour that does not lie on a slice of its image "
            f"(slices {heights.min():.1f} to {heights.max():.1f})",
            "export it for this series; contours drawn in another direction cannot be used",
        )
    if not 0 <= at < mask.shape[2]:
        raise FlamesError(
            f"{path} has a contour outside of its image, at slice {at} of {mask.shape[2]}",
            "copy the missing slices of the series, or export the contours for this series",
        )
    mask[:, :, at] ^= inside(index[:, :2], (mask.shape[0], mask.shape[1]))
