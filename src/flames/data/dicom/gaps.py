"""What a series says of slices that may be missing although all of it lies evenly.

Where every second slice is gone, the rest is an even stack of thicker steps. Files say it in three
ways: by their distance to the next slice, by their thickness, and by their numbers. Scans with gaps
between their slices look alike, so it is a doubt and no error.
"""

from __future__ import annotations

from collections.abc import Sequence

from flames.data.dicom.headers import Frame

STATED = 1.1
"""Share of SpacingBetweenSlices to which slices lie as it says, and nothing is missing."""
BETWEEN = 1.5
"""Share of SpacingBetweenSlices from which one is missing."""
THICKNESS = 1.9
"""Share of SliceThickness: gaps of half a slice are usual in MR."""


def doubt(frames: Sequence[Frame], distance: float) -> str | None:
    """Return what speaks for missing slices, with its numbers, or None.

    Args:
        frames: In order.
        distance: Between neighbours, mm.
    """
    if len(frames) < 2:
        return None
    between, thick = frames[0].between, frames[0].thickness
    says = []
    if between and not _is_gap(between, thick, distance):
        if distance <= STATED * between:
            return None
        if distance >= BETWEEN * between:
            says.append(f"SpacingBetweenSlices says {between:.4g} mm")
    elif thick and distance >= THICKNESS * thick:
        says.append(f"SliceThickness says {thick:.4g} mm")
    numbers = {frame.number for frame in frames if frame.number is not None}
    if len(numbers) == len(frames) and max(numbers) - min(numbers) >= 2 * (len(frames) - 1):
        says.append(f"{len(frames)} slices have numbers from {min(numbers)} to {max(numbers)}")
    if not says:
        return None
    return f"slices lie {distance:.4g} mm apart, and {' and '.join(says)}"


def _is_gap(between: float, thick: float | None, distance: float) -> bool:
    """Return whether SpacingBetweenSlices is that from edge to edge, as some programs write it."""
    if thick is None or between > 0.95 * thick:
        return False
    return abs(thick + between - distance) < 0.05 * distance
