"""DICOM SEG: the segments of a viewer or of a model become a mask on the grid of their image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from flames.data.dicom.headers import Frame, Groups, quiet
from flames.data.dicom.stacks import LPS_TO_RAS, Stack
from flames.data.pictures import reading
from flames.errors import FlamesError

NEAR = 0.1
"""Share of a voxel by which a segment's planes may lie off the image's."""


def segment_names(data: Dataset) -> dict[int, str]:
    """Return the labels of the segments by number."""
    return {
        int(one.SegmentNumber): str(one.get("SegmentLabel", ""))
        for one in data.get("SegmentSequence") or []
    }


def segmented_series(data: Dataset) -> set[str]:
    """Return the series that a segmentation says it was made from."""
    return {
        str(one.SeriesInstanceUID)
        for one in data.get("ReferencedSeriesSequence") or []
        if one.get("SeriesInstanceUID")
    }


def referenced_instances(data: Dataset) -> set[str]:
    """Return the images that a segmentation says it was made from."""
    return {
        str(image.ReferencedSOPInstanceUID)
        for one in data.get("ReferencedSeriesSequence") or []
        for image in one.get("ReferencedInstanceSequence") or []
        if image.get("ReferencedSOPInstanceUID")
    }


def segment_mask(data: Dataset, numbers: Iterable[int], *, stack: Stack, path: Path) -> np.ndarray:
    """Return the mask of segments, ``(columns, rows, slices)`` uint8 on the grid of ``stack``.

    A segment whose planes are all empty says that there is none of it; one without a plane says
    nothing, and is passed over where others of ``numbers`` have planes.

    Raises:
        FlamesError: No segment has a plane, the file is damaged, or its planes are not those of
            the image.
    """
    total = np.zeros(stack.shape, np.uint8)
    wanted, planes = set(numbers), 0
    with reading(path), quiet():
        frames = _frames(data)
        kind = str(data.get("SegmentationType", "BINARY"))
        most = float(data.get("MaximumFractionalValue") or 1)
        for index, pixels in enumerate(frames):
            where = Groups(data, index)
            if kind == "LABELMAP":
                found = np.isin(pixels, list(wanted))
            else:
                part: Any = where.get("ReferencedSegmentNumber")
                if int(part) not in wanted:
                    continue
                found = pixels > most / 2 if kind == "FRACTIONAL" else pixels > 0
            planes += 1
            at = _slice(where, found, stack, path)
            total[:, :, at] |= found.T.astype(np.uint8)
    if not planes:
        names = segment_names(data)
        named = ", ".join(sorted(repr(names.get(number, "")) for number in wanted))
        raise FlamesError(
            f"{path} names {named} and has no plane of it, so it does not say where tumour is",
            "save the segmentation again with that segment, or take the file away",
        )
    return total


def _frames(data: Dataset) -> np.ndarray:
    pixels = pixel_array(data)
    return pixels[None] if pixels.ndim == 2 else pixels


def _slice(where: Groups, found: np.ndarray, stack: Stack, path: Path) -> int:
    """Return the slice of the image on which a frame of the segmentation lies."""
    if found.shape != (stack.shape[1], stack.shape[0]):
        raise FlamesError(
            f"{path} has planes of {found.shape[0]} x {found.shape[1]} pixels, its image "
            f"{stack.shape[1]} x {stack.shape[0]}",
            "resample the segmentation to its image and save it again",
        )
    position, affine = where.get("ImagePositionPatient"), stack.affine
    if position is None or affine is None:
        return _referenced(where, stack.frames, path)
    orientation = where.get("ImageOrientationPatient")
    spacing = where.get("PixelSpacing")
    if orientation is None or spacing is None:
        raise FlamesError(f"{path} does not say how its planes lie", "save the segmentation again")
    corners = np.array([[0, 0], [found.shape[1] - 1, 0], [0, found.shape[0] - 1]])
    turn = np.array([float(v) for v in orientation]).reshape(2, 3)
    scale = np.array([float(spacing[1]), float(spacing[0])])
    points = np.array([float(v) for v in position]) + (corners * scale) @ turn
    to_index = np.linalg.inv(affine) @ LPS_TO_RAS
    index = points @ to_index[:3, :3].T + to_index[:3, 3]
    at = round(float(index[0, 2]))
    expected = np.column_stack([corners, np.full(3, at)])
    if np.abs(index - expected).max() > NEAR or not 0 <= at < stack.shape[2]:
        raise FlamesError(
            f"{path} has a plane that is not one of its image's: it lies up to "
            f"{np.abs(index - expected).max():.2f} voxels off",
            "copy its slice from the archive where slices are missing; else resample the "
            "segmentation to its image and save it again",
        )
    return at


def _referenced(where: Groups, frames: tuple[Frame, ...], path: Path) -> int:
    for group in where.items:
        for derived in group.get("DerivationImageSequence") or []:
            for source in derived.get("SourceImageSequence") or []:
                uid = str(source.get("ReferencedSOPInstanceUID", ""))
                number = source.get("ReferencedFrameNumber")
                for at, frame in enumerate(frames):
                    same = number is None or frame.index in (None, int(number) - 1)
                    if frame.instance == uid and same:
                        return at
    raise FlamesError(
        f"{path} has a plane that names no image of its series",
        "save the segmentation again with references to its source images",
    )
