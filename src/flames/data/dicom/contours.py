"""RTSTRUCT: the contours of a planning system become a mask on the slices that they were drawn on.

A pixel is inside when its centre is. Contours of one structure in one plane combine by exclusive
or, so that an inner ring is a hole (CLOSED_PLANAR and CLOSED_PLANAR_XOR). Planes on one slice, as
of contours that were drawn on thinner slices, combine by or, and so do structures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
SAME_PLANE = 0.05
"""Share of the slice distance within which contours lie in one plane, for all their rounding."""


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

    A structure that is named and not drawn is passed over where others of ``numbers`` are drawn.

    Raises:
        FlamesError: No structure has a contour, or their contours enclose no pixel; a contour is
            not a closed one, lies between the slices or outside of all of them, or is damaged.
    """
    known = structure_names(data)
    names = {number: known.get(number, "") for number in numbers}
    total = np.zeros(shape, bool)
    to_index = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    drawn = 0
    with reading(path), quiet():
        for structure in data.get("ROIContourSequence") or []:
            name = names.get(int(structure.ReferencedROINumber))
            contours = structure.get("ContourSequence") or []
            if name is None or not contours:
                continue
            _check_closed(contours, name, path)
            drawn += len(contours)
            by_slice: dict[int, list[_Ring]] = {}
            for contour in contours:
                at, ring = _placed(_points(contour, path), to_index, shape[2], path)
                by_slice.setdefault(at, []).append(ring)
            for at, rings in by_slice.items():
                total[:, :, at] |= _joined(rings, shape[:2])
    if not total.any():
        _refuse_empty(sorted(names.values()), drawn, path)
    return total.astype(np.uint8)


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


@dataclass(frozen=True, eq=False)
class _Ring:
    """One contour in the indices of the image."""

    height: float
    """Where it lies, in slices."""
    points: np.ndarray


def _placed(points: np.ndarray, to_index: np.ndarray, slices: int, path: Path) -> tuple[int, _Ring]:
    """Return a contour and the slice on which it lies."""
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    heights = index[:, 2]
    height = float(np.median(heights))
    at = round(height)
    if np.abs(heights - at).max() > OFF_PLANE + 1e-6:
        raise FlamesError(
            f"{path} has a contour that does not lie on a slice of its image "
            f"(slices {heights.min():.1f} to {heights.max():.1f})",
            "export it for this series; contours drawn in another direction cannot be used",
        )
    if not 0 <= at < slices:
        raise FlamesError(
            f"{path} has a contour outside of its image, at slice {at} of {slices}",
            "copy the missing slices of the series, or export the contours for this series",
        )
    return at, _Ring(height, index[:, :2])


def _joined(rings: Sequence[_Ring], shape: tuple[int, int]) -> np.ndarray:
    """Return what the rings of one slice enclose: plane by plane, for a hole is in one plane."""
    ordered = sorted(rings, key=lambda ring: ring.height)
    total, plane, height = np.zeros(shape, bool), np.zeros(shape, bool), ordered[0].height
    for ring in ordered:
        if ring.height - height > SAME_PLANE:
            total |= plane
            plane, height = np.zeros(shape, bool), ring.height
        plane ^= inside(ring.points, shape)
    return total | plane


def _check_closed(contours: Iterable[Any], name: str, path: Path) -> None:
    kinds = [str(one.get("ContourGeometricType", "")) for one in contours]
    others = [kind for kind in kinds if kind not in CLOSED]
    if others:
        raise FlamesError(
            f"{path}: {len(others)} of {len(kinds)} contours of structure {name!r} are not closed "
            f"but {', '.join(sorted({kind or 'of no kind' for kind in others}))}, and enclose "
            "nothing",
            "close them and export the structure set again, or leave the structure out of --roi",
        )


def _refuse_empty(names: Sequence[str], drawn: int, path: Path) -> None:
    named = ", ".join(map(repr, names))
    if not drawn:
        raise FlamesError(
            f"{path} names {named} and has no contour of it, so it does not say where tumour is",
            "draw it and export the structure set again, or take the file away",
        )
    raise FlamesError(
        f"{path}: the contours of {named} enclose no pixel centre of its image",
        "export the contours for this series, or take the file away",
    )
