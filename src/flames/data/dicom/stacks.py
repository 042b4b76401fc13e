"""Frames become a stack: sorted by where they lie, and refused with a reason where they do not fit.

All geometry here is DICOM's own: LPS millimetres, positions of pixel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flames.data.dicom.gaps import doubt
from flames.data.dicom.headers import Frame, Header
from flames.errors import FlamesError

EVEN = 0.02
"""Share of the usual distance by which slices may lie uneven."""
TILT_DEGREES = 0.5
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Stack:
    """One series in order, or a single image."""

    series: str
    modality: str
    patient: str
    study: str
    frame_of_reference: str | None
    frames: tuple[Frame, ...]
    """From the first slice to the last, along the normal of the planes."""
    step: tuple[float, float, float] | None
    """From one slice to the next; None without a place in the patient."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files, each once, in order."""
        return tuple(dict.fromkeys(frame.path for frame in self.frames))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return columns, rows, slices: the axes of the volume."""
        first = self.frames[0]
        return first.columns, first.rows, len(self.frames)

    @property
    def step_known(self) -> bool:
        """Return whether slices say how far they are apart, or a single one how thick it is."""
        first = self.frames[0]
        return len(self.frames) > 1 or bool(first.between or first.thickness)

    @property
    def doubt(self) -> str | None:
        """Return what speaks for slices that are missing, or None."""
        return None if self.step is None else doubt(self.frames, float(np.linalg.norm(self.step)))

    @property
    def affine(self) -> np.ndarray | None:
        """Return the map from (column, row, slice) to RAS millimetres."""
        first = self.frames[0]
        if self.step is None or first.position is None:
            return None
        assert first.orientation is not None
        assert first.spacing is not None
        lps = np.eye(4)
        lps[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]
        lps[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
        lps[:3, 2] = self.step
        lps[:3, 3] = first.position
        return LPS_TO_RAS @ lps


def stack_headers(headers: Sequence[Header]) -> Stack:
    """Return the stack of one series.

    Raises:
        FlamesError: Slices are missing, doubled, unevenly spaced, sheared by a tilted gantry, or
            of several sizes or directions.
    """
    first = headers[0]
    frames = _once([frame for header in headers for frame in header.frames])
    placed = [f for f in frames if f.position is not None and f.orientation is not None]
    stack = Stack(
        first.series,
        first.modality,
        first.patient,
        first.study,
        first.frame_of_reference,
        tuple(frames),
        None,
    )
    if not placed:
        if len(frames) > 1 and not first.multiframe:
            raise FlamesError(
                f"{first.path.parent}: {len(frames)} {first.modality} files of one series say no "
                "position in the patient, so their order is not known",
                "export the series again with its geometry, or give single images",
            )
        return stack
    _check_alike(frames, placed)
    return _placed(stack, placed)


def _once(frames: Sequence[Frame]) -> list[Frame]:
    """Drop copies of one and the same instance; elsewhere in the patient it is no copy."""

    def which(frame: Frame) -> tuple[object, ...]:
        return frame.instance or str(frame.path), frame.index, frame.position

    return list({which(frame): frame for frame in reversed(frames)}.values())[::-1]


def _check_alike(frames: Sequence[Frame], placed: Sequence[Frame]) -> None:
    first = placed[0]
    if len(placed) < len(frames):
        lost = next(f for f in frames if f.position is None or f.orientation is None)
        raise FlamesError(
            f"{lost.path} says no position, other files of its series do",
            "take the file away, it is perhaps a summary page",
        )
    for frame in placed:
        if (frame.rows, frame.columns) != (first.rows, first.columns):
            raise FlamesError(
                f"{frame.path} is {frame.rows} x {frame.columns}, {first.path} of the same series "
                f"{first.rows} x {first.columns}",
                "put them into two series, or take the odd ones away",
            )
        if not np.allclose(frame.orientation or (), first.orientation or (), atol=1e-3):
            raise FlamesError(
                f"{frame.path} is cut in another direction than {first.path} of the same series",
                "a survey (localiser) cannot be used: take it away, or split the series",
            )
        if frame.spacing is None or not np.allclose(frame.spacing, first.spacing or (), rtol=1e-3):
            raise _other_pixels(frame, first)


def _other_pixels(frame: Frame, first: Frame) -> FlamesError:
    remedy = "export the series again, every slice with its PixelSpacing"
    unsaid = next((one for one in (first, frame) if one.spacing is None), None)
    if unsaid is not None:
        return FlamesError(f"{unsaid.path} does not say how large its pixels are", remedy)
    return FlamesError(
        f"{frame.path} has pixels of {frame.spacing} mm, {first.path} of {first.spacing}", remedy
    )


def _placed(stack: Stack, frames: Sequence[Frame]) -> Stack:
    across = np.array(frames[0].orientation).reshape(2, 3)
    if not np.allclose(across @ across.T, np.eye(2), atol=1e-3):
        raise FlamesError(
            f"{frames[0].path} has an ImageOrientationPatient that is not two right-angled "
            "directions",
            "export the series again",
        )
    normal = np.cross(across[0], across[1])
    places = np.array([frame.position for frame in frames])
    heights = places @ normal
    order = np.argsort(heights, kind="stable")
    ordered = tuple(frames[i] for i in order)
    if len(ordered) == 1:
        thick = ordered[0].between or ordered[0].thickness or 1.0
        x, y, z = (float(v) for v in normal * thick)
        return replace(stack, frames=ordered, step=(x, y, z))
    _check_even(ordered, heights[order])
    whole = (places[order[-1]] - places[order[0]]) / (len(ordered) - 1)
    _check_tilt(ordered, whole, normal)
    x, y, z = (float(v) for v in whole)
    return replace(stack, frames=ordered, step=(x, y, z))


def _check_even(frames: Sequence[Frame], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    usual = float(np.median(gaps[gaps > 1e-3])) if (gaps > 1e-3).any() else 0.0
    for index, gap in enumerate(gaps):
        one, two = _name(frames[index]), _name(frames[index + 1])
        if gap <= max(1e-3, EVEN * usual):
            raise FlamesError(
                f"{one} and {two} lie at the same place: a slice is there twice",
                "keep one: the series may hold a copy, two reconstructions, or several points in "
                "time; split those into series",
            )
        if abs(gap - usual) <= max(EVEN * usual, 0.01):
            continue
        steps = gap / usual
        if steps > 1.5 and abs(steps - round(steps)) < 0.1:
            raise FlamesError(
                f"between {one} and {two} of one series {round(steps) - 1} slice(s) are missing: "
                f"they are {gap:.2f} mm apart, others {usual:.2f} mm",
                "copy the missing files from the archive",
            )
        raise FlamesError(
            f"{one} and {two} are {gap:.2f} mm apart, other slices of the series {usual:.2f} mm: "
            "the spacing is uneven",
            "export one evenly spaced reconstruction, or split the series where it changes",
        )


def _check_tilt(frames: Sequence[Frame], step: np.ndarray, normal: np.ndarray) -> None:
    cosine = float(step @ normal / np.linalg.norm(step))
    tilt = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    if tilt > TILT_DEGREES:
        raise FlamesError(
            f"the series of {frames[0].path} is sheared: its slices are shifted against each other "
            f"by {tilt:.1f} degrees, as with a tilted gantry",
            "have the scanner or a viewer resample it to an untilted series, with its contours",
        )


def _name(frame: Frame) -> str:
    return str(frame.path) if frame.index is None else f"{frame.path} frame {frame.index + 1}"
