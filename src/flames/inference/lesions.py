"""A mask becomes a list of lesions: how large, how wide, where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from flames.data.scans import Scan


@dataclass(frozen=True)
class Lesion:
    """One connected part of a mask."""

    number: int
    """From 1, the largest first."""
    voxels: int
    size: float
    size_unit: str
    """``ml`` of a volume, ``mm2`` of an image; ``voxels`` or ``px`` where spacing is unknown."""
    diameter: float
    """Longest distance inside one slice, from pixel edge to pixel edge."""
    diameter_unit: str
    x: float
    """Centre: millimetres to the right, front and head (RAS), or column and row of a picture."""
    y: float
    z: float | None
    position_unit: str
    """``mm`` in RAS, or ``px`` from the upper left."""
    slice: int | None
    """The slice with the largest cut, from 0 in the source's own order."""
    mean_probability: float
    highest_probability: float

    def as_row(self) -> dict[str, Any]:
        """Return the lesion as one row of a table."""
        return asdict(self)


def find_lesions(mask: np.ndarray, probabilities: np.ndarray, scan: Scan) -> list[Lesion]:
    """Return the connected parts of ``mask`` (a shared corner connects), the largest first.

    Args:
        mask: Bool, in the shape of the scan's image.
        probabilities: Of the same shape.
        scan: Whose spacing and place are used.
    """
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    if not count:
        return []
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    order = np.argsort(-sizes, kind="stable")
    return [
        _lesion(number, labels[boxes[i]] == i + 1, boxes[i], probabilities, scan)
        for number, i in enumerate(order, start=1)
    ]


def diameter(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the longest distance in a plane mask, measured between the edges of its pixels.

    >>> diameter(np.array([[1, 1, 1, 1]]), (0.5, 1.0))  # four pixels of 1 mm in a row
    4.0
    """
    edge = mask.astype(bool) & ~ndimage.binary_erosion(mask)
    points = np.argwhere(edge).astype(float)
    if not len(points):
        return 0.0
    shifts = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    ends = (points[:, None] + shifts).reshape(-1, 2) * np.asarray(spacing)
    try:
        ends = ends[ConvexHull(ends).vertices]
    except QhullError:
        ends = np.unique(ends, axis=0)
    return float(pdist(ends).max())


def _lesion(
    number: int, part: np.ndarray, box: tuple[slice, ...], probabilities: np.ndarray, scan: Scan
) -> Lesion:
    start = np.array([side.start for side in box])
    centre = np.argwhere(part).mean(axis=0) + start
    probs = probabilities[box][part]
    inside = [s for axis, s in enumerate(scan.spacing) if axis != scan.slice_axis]
    size, unit = _size(int(part.sum()), scan)
    x, y, z = _place(centre, scan)
    return Lesion(
        number=number,
        voxels=int(part.sum()),
        size=round(size, 6),
        size_unit=unit,
        diameter=round(max(diameter(cut, inside) for cut in scan.slices(part)), 3),
        diameter_unit="mm" if scan.pixels_known else "px",
        x=x,
        y=y,
        z=z,
        position_unit="px" if scan.affine is None else "mm",
        slice=_slice(part, start, scan),
        mean_probability=round(float(probs.mean(dtype=np.float64)), 4),
        highest_probability=round(float(probs.max()), 4),
    )


def _place(centre: np.ndarray, scan: Scan) -> tuple[float, float, float | None]:
    if scan.affine is None:
        return round(float(centre[1]), 2), round(float(centre[0]), 2), None
    x, y, z = (round(float(v), 2) for v in (scan.affine @ [*centre, 1])[:3])
    return x, y, z


def _slice(part: np.ndarray, start: np.ndarray, scan: Scan) -> int | None:
    if scan.slice_axis is None:
        return None
    at = int(scan.slices(part).sum(axis=(1, 2)).argmax() + start[scan.slice_axis])
    return scan.image.shape[scan.slice_axis] - 1 - at if scan.slices_reversed else at


def _size(voxels: int, scan: Scan) -> tuple[float, str]:
    flat = len(scan.spacing) == 2
    if not scan.spacing_known:
        return float(voxels), "px" if flat else "voxels"
    size = voxels * float(np.prod(scan.spacing))
    return (size, "mm2") if flat else (size / 1000, "ml")
