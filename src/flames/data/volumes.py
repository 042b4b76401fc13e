"""Volume files and stacks of slices become arrays ``(X, Y, Z)`` in the orientation nearest RAS.

NIfTI and Analyze are read by nibabel; NRRD and MetaImage by SimpleITK, which knows their
directions.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes as _voxel_sizes
from nibabel.filebasedimages import SerializableImage
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from flames.data.pictures import reading
from flames.errors import FlamesError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, ".img", *ITK_SUFFIXES)
"""``.img`` is Analyze, with its ``.hdr`` beside it."""
PLACE_TOLERANCE = 0.1
"""Share of a voxel by which the corners of image and label may lie apart."""
MILLIMETRES = {1: 1000.0, 3: 0.001}
"""Of the other units of a NIfTI by their codes: metre and micrometre."""
GZIP = b"\x1f\x8b"
NIFTI_STARTS = tuple(size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big"))
"""The length of its header, with which a NIfTI begins."""
CLEARLY_THICKER = 1.2
SLICES_AT_ONCE = 8
UNZIPPED_AT_ONCE = 1 << 29
"""Bytes; larger volumes are unzipped piece by piece, to hold them in memory once."""


def load_volume(path: Path, channel: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume nearest RAS with its affine; otherwise as `load_native`."""
    return to_ras(*load_native(path, channel))


def load_label(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a label map nearest RAS with its affine.

    Raises:
        FlamesError: As `load_native`, or it has several channels.
    """
    volume, affine = _load(path)
    if volume.ndim == 4 and volume.shape[3] > 1:
        raise FlamesError(
            f"{path} is a label of {volume.shape[3]} channels, it must have one",
            "give one value a voxel, such as 1 in the tumour; --channel is for images only",
        )
    return to_ras(_one_channel(path, volume, None), affine)


def load_native(path: Path, channel: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume in the file's own axes, and its affine to RAS.

    Args:
        path: The file; with four dimensions, channels come last.
        channel: Which channel, where there are several.

    Raises:
        FlamesError: The file is damaged, has no usable affine, is not a volume, or ``channel`` does
            not fit.
    """
    volume, affine = _load(path)
    return _one_channel(path, volume, channel), affine


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.name.lower().endswith(ITK_SUFFIXES):
        volume, affine = _load_itk(path)
    else:
        with reading(path):
            _check_ending(path)
            image: Any = nib.load(path)
            volume = np.asanyarray(_unzipped(path, image).dataobj)
            affine = _in_millimetres(image)
    if volume.dtype.kind not in "biuf":
        raise FlamesError(
            f"{path} holds values of type {volume.dtype}, not plain numbers",
            "convert it to one number a voxel",
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise FlamesError(
            f"{path} has an affine that cannot be inverted", "mend the header's sform or qform"
        )
    return volume, affine


def _check_ending(path: Path) -> None:
    """Refuse a whole NIfTI that is zipped and not named so, or the other way round.

    Copied again it would be just as unreadable.
    """
    with path.open("rb") as file:
        start = file.read(4)
    name = path.name
    if name.lower().endswith(".nii") and start[:2] == GZIP:
        raise FlamesError(f"{path} is zipped and not named so", f"rename it to {name}.gz")
    if name.lower().endswith(".gz") and start in NIFTI_STARTS:
        raise FlamesError(f"{path} is not zipped and named so", f"rename it to {name[:-3]}")


def _in_millimetres(image: Any) -> np.ndarray:
    """Return the affine of a file, which may count in metres or micrometres; unsaid is mm."""
    affine = np.array(image.affine, dtype=float)
    if isinstance(image.header, nib.Nifti1Header):
        # The lowest three bits; nibabel's own getter fails on a code that no unit has.
        affine[:3] *= MILLIMETRES.get(int(image.header["xyzt_units"]) % 8, 1.0)
    return affine


def to_ras(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the volume with axes flipped and swapped to the nearest RAS, and its new affine."""
    orientation = io_orientation(affine)
    moved = apply_orientation(volume, orientation)
    new = affine @ inv_ornt_aff(orientation, volume.shape)
    return _contiguous(moved), new


def voxel_sizes(affine: np.ndarray) -> tuple[float, ...]:
    """Return the spacing in array-axis order, in the affine's unit, rounded to a nanometre."""
    return tuple(round(float(s), 6) for s in _voxel_sizes(affine))


def slice_axis(spacing: tuple[float, ...], shape: tuple[int, ...]) -> int:
    """Return the axis across slices: that of a single slice, the clearly thickest, else the last.

    >>> slice_axis((5.0, 0.9, 0.9), (20, 64, 64)), slice_axis((1.0, 1.0, 1.1), (64, 64, 64))
    (0, 2)
    >>> slice_axis((1.0, 0.9, 0.9), (1, 64, 64))  # cut in the middle, from head to feet
    0
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    order = sorted(range(3), key=lambda axis: spacing[axis])
    thick = spacing[order[2]] > CLEARLY_THICKER * spacing[order[1]]
    return order[2] if thick else 2


def check_same_place(
    image: tuple[Path, np.ndarray, np.ndarray], label: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    """Refuse a label that lies elsewhere than its image; both as path, volume, affine.

    Raises:
        FlamesError: Sizes differ, or a corner is more than `PLACE_TOLERANCE` of a voxel away.
    """
    if image[1].shape != label[1].shape:
        raise FlamesError(
            f"{label[0]} is {_size(label[1])}, its image {_size(image[1])}",
            "give the label on the grid of the image",
        )
    ends = np.array(image[1].shape) - 1
    corners = np.array([[*(np.array(c) * ends), 1] for c in np.ndindex(2, 2, 2)])
    apart = np.abs((image[2] - label[2])[:3] @ corners.T)
    apart_mm = float(np.sqrt((apart**2).sum(axis=0)).max())
    if apart_mm > PLACE_TOLERANCE * min(_voxel_sizes(image[2])):
        raise FlamesError(
            f"{label[0]} lies up to {apart_mm:.3g} mm from its image: their affines differ",
            "resample the label to the image, or mend its header",
        )


def _contiguous(volume: np.ndarray) -> np.ndarray:
    """Return the volume in C order; a few slices at a time, so that each stays in the cache."""
    if volume.flags.c_contiguous:
        return volume
    copy = np.empty(volume.shape, volume.dtype)
    for start in range(0, volume.shape[2], SLICES_AT_ONCE):
        part = slice(start, start + SLICES_AT_ONCE)
        copy[:, :, part] = volume[:, :, part]
    return copy


def _unzipped(path: Path, image: Any) -> Any:
    """Return the image of a ``.gz`` unzipped at once: faster, and its checksum is looked at.

    nibabel unzips piece by piece as far as the voxels go. So does this where a file is of several
    parts, larger than `UNZIPPED_AT_ONCE`, or not as long as its header says: but of files that are
    not too large for it, checksums are looked at before.
    """
    kept = isinstance(image, SerializableImage) and path.name.lower().endswith(".gz")
    size = image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    if not kept or size > UNZIPPED_AT_ONCE:
        return image
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content = unzip.decompress(path.read_bytes(), size + 1)
    whole = unzip.eof and not unzip.unused_data and len(content) == size
    if not whole:
        _check_sums(path)
    return type(image).from_bytes(content) if whole else image


def _check_sums(path: Path) -> None:
    """Unzip a file to its end, which is where its checksum lies: voxels may end before it."""
    with gzip.open(path) as file:
        while file.read(UNZIPPED_AT_ONCE >> 8):
            pass


def _load_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise FlamesError(
            f"{path} needs SimpleITK, which is not installed",
            "in the folder of FLAMES: scripts/setup formats",
        ) from error
    with reading(path):
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        size = image.GetDimension()
        if size != 3:
            raise FlamesError(f"{path} has {size} dimensions, not three", "give one volume a file")
        lps = np.eye(4)
        turn = np.array(image.GetDirection()).reshape(3, 3)
        lps[:3, :3] = turn * np.array(image.GetSpacing())
        lps[:3, 3] = image.GetOrigin()
    # ITK counts slices, rows, columns, and channels last.
    volume = np.moveaxis(array, (0, 1, 2), (2, 1, 0))
    return volume, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _one_channel(path: Path, volume: np.ndarray, channel: int | None) -> np.ndarray:
    if volume.ndim == 4 and volume.shape[3] == 1:
        volume = volume[..., 0]
    if volume.ndim == 4:
        if channel is None:
            raise FlamesError(
                f"{path} has {volume.shape[3]} channels", "say which with --channel, from 0"
            )
        if not 0 <= channel < volume.shape[3]:
            raise FlamesError(
                f"{path} has channels 0 to {volume.shape[3] - 1}, not {channel}",
                "correct --channel",
            )
        return volume[..., channel]
    if volume.ndim != 3 or 0 in volume.shape:
        raise FlamesError(f"{path} is {_size(volume)}, not a volume", "give volumes only")
    if channel not in (None, 0):
        raise FlamesError(f"{path} has one channel, not channel {channel}", "drop --channel")
    return volume


def _size(array: np.ndarray) -> str:
    return " x ".join(str(n) for n in array.shape)
