"""One image file, without a label: its pixels as a network wants them, and the way back.

Networks see volumes nearest RAS. Whatever is found must lie in the file's own grid again, so a
`Scan` carries that grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from flames.data.normalise import looks_like_hu
from flames.data.pictures import frame_count, read_frames, read_picture
from flames.data.store import Modality
from flames.data.volumes import VOLUME_SUFFIXES, load_native, slice_axis, to_ras, voxel_sizes
from flames.errors import FlamesError, nearest

if TYPE_CHECKING:
    from flames.data.dicom.stacks import Stack

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
RAS = np.array([[0, 1], [1, 1], [2, 1]], dtype=float)


@dataclass(frozen=True, eq=False)
class Grid:
    """The array grid of the source, to which results are brought back."""

    shape: tuple[int, ...]
    """``(H, W)`` of a picture, or the volume's own axes."""
    affine: np.ndarray | None
    """Index in the source's own axes to RAS millimetres; None for pictures."""

    def place(self, array: np.ndarray) -> np.ndarray:
        """Return an array nearest RAS in the source's own axes; a picture stays as it is."""
        if self.affine is None:
            return array
        back = ornt_transform(RAS, io_orientation(self.affine))
        return np.ascontiguousarray(apply_orientation(array, back))


@dataclass(frozen=True, eq=False)
class Scan:
    """One image with its geometry."""

    image: np.ndarray
    """``(H, W)``, or ``(X, Y, Z)`` nearest RAS, in the source's intensities."""
    spacing: tuple[float, ...]
    """In array-axis order; 1 where it is not known."""
    spacing_known: bool
    affine: np.ndarray | None
    """Array index to RAS millimetres, for volumes."""
    slice_axis: int | None
    grid: Grid
    modality: Modality | None
    """Where the file tells, or its values can only be Hounsfield units."""
    stack: Stack | None = None
    """The frames that it came from, where it is DICOM."""

    @property
    def doubt(self) -> str | None:
        """Return what speaks for slices that are missing from a DICOM series, or None."""
        return None if self.stack is None else self.stack.doubt

    @property
    def pixels_known(self) -> bool:
        """Return whether distances inside a slice are known: those between frames need not be."""
        stated = self.stack is not None and self.stack.frames[0].spacing is not None
        return self.spacing_known or stated

    @property
    def slices_reversed(self) -> bool:
        """Return whether the source counts its slices from the other end."""
        if self.grid.affine is None:
            return False
        ends = {int(axis): way for axis, way in io_orientation(self.grid.affine)}
        return self.slice_axis is not None and ends[self.slice_axis] < 0

    def slices(self, array: np.ndarray) -> np.ndarray:
        """Return ``array``, of the image's shape, as ``(N, H, W)``."""
        return array[None] if self.slice_axis is None else np.moveaxis(array, self.slice_axis, 0)

    def unslice(self, slices: np.ndarray) -> np.ndarray:
        """Return slices ``(N, H, W)`` in the image's shape."""
        return slices[0] if self.slice_axis is None else np.moveaxis(slices, 0, self.slice_axis)


def read_series(paths: Sequence[Path]) -> Scan:
    """Return the image of one DICOM series.

    Raises:
        FlamesError: A file is damaged, or they are not one even stack.
    """
    from flames.data.dicom.find import series_stack
    from flames.data.dicom.pixels import stack_volume

    stack = series_stack(paths)
    volume, affine = stack_volume(stack), stack.affine
    if affine is not None:
        scan = volume_scan(volume, affine, modality=stack.modality)  # type: ignore[arg-type]
        # The step of a single slice is its thickness, or made up.
        return replace(scan, stack=stack, spacing_known=stack.step_known)
    images = np.ascontiguousarray(volume.T)
    image, axis = (images[0], None) if len(images) == 1 else (images, 0)
    inside = stack.frames[0].spacing
    spacing = inside or (1.0, 1.0)
    return Scan(
        image,
        spacing if axis is None else (1.0, *spacing),
        inside is not None and axis is None,
        None,
        axis,
        Grid(image.shape, None),
        stack.modality,  # type: ignore[arg-type]
        stack,
    )


def read_scan(path: Path, *, channel: int | None = None) -> Scan:
    """Return the image in the file at ``path``.

    Raises:
        FlamesError: The file is of no known kind, damaged, has several channels and none chosen,
            or a value that is not finite.
    """
    scan = _reader(path)(path, channel)
    if not np.isfinite(scan.image).all():
        raise FlamesError(
            f"{path} holds values that are not finite (NaN or infinity)",
            "replace them by the value of the background",
        )
    return scan


def known_suffix(path: Path) -> str | None:
    """Return the ending by which the file is read, or None.

    >>> known_suffix(Path("a.b.NII.GZ"))
    '.nii.gz'
    """
    name = path.name.lower()
    fitting = [suffix for suffix in READERS if name.endswith(suffix) and len(name) > len(suffix)]
    return max(fitting, key=len, default=None)


def volume_scan(
    volume: np.ndarray, affine: np.ndarray, *, modality: Modality | None = None
) -> Scan:
    """Return the scan of a volume in its source's axes, ``affine`` leading to RAS."""
    moved, ras = to_ras(volume, affine)
    spacing = voxel_sizes(ras)
    return Scan(
        moved,
        spacing,
        True,
        ras,
        slice_axis(spacing, moved.shape),
        Grid(volume.shape, affine),
        modality or ("CT" if looks_like_hu(moved) else None),
    )


def _volume(path: Path, channel: int | None) -> Scan:
    return volume_scan(*load_native(path, channel))


def _picture(path: Path, channel: int | None) -> Scan:
    if frame_count(path) > 1:
        frames = read_frames(path, channel)
        return Scan(frames, (1.0,) * 3, False, None, 0, Grid(frames.shape, None), None)
    image = read_picture(path, channel)
    return Scan(image, (1.0, 1.0), False, None, None, Grid(image.shape, None), None)


READERS: dict[str, Callable[[Path, int | None], Scan]] = {
    **dict.fromkeys(PICTURE_SUFFIXES, _picture),
    **dict.fromkeys(VOLUME_SUFFIXES, _volume),
}


def _reader(path: Path) -> Callable[[Path, int | None], Scan]:
    suffix = known_suffix(path)
    if suffix is None:
        raise FlamesError(
            f"{path} is not an image that flames reads",
            nearest(path.suffix.lower(), READERS),
        )
    return READERS[suffix]
