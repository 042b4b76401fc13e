"""The pixels of a stack: decoded, in Hounsfield units where the file says how, colours as grey."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.pixels.processing import apply_color_lut

from flames.data.dicom.headers import Frame, quiet, read_dataset
from flames.data.dicom.stacks import Stack
from flames.data.pictures import reading
from flames.errors import FlamesError

GREY = np.array([0.299, 0.587, 0.114])
MOST_BYTES = 16 << 30


def stack_volume(stack: Stack) -> np.ndarray:
    """Return the pixels of a stack as ``(columns, rows, slices)``, int16, uint8, uint16 or float32.

    Raises:
        FlamesError: A file is damaged, or compressed in a way that no installed decoder reads.
    """
    if np.prod(stack.shape, dtype=float) * 4 > MOST_BYTES:
        raise FlamesError(
            f"{stack.paths[0]} says that it is {' x '.join(map(str, stack.shape))}",
            "it is damaged, or too large for this version",
        )
    slices = [frame_pixels(frame) for frame in stack.frames]
    kind = np.result_type(*slices)
    for frame, one in zip(stack.frames, slices, strict=True):
        if one.shape != (stack.shape[1], stack.shape[0]):
            raise FlamesError(
                f"{frame.path} holds {one.shape[0]} x {one.shape[1]} pixels, not what it says",
                "copy the file again from the archive",
            )
    return narrow(np.stack([one.T for one in slices], axis=2).astype(kind, copy=False))


def frame_pixels(frame: Frame) -> np.ndarray:
    """Return one frame as ``(rows, columns)``, rescaled as its file says."""
    with reading(frame.path), quiet():
        data, pixels = _decoded(frame.path)
        one = pixels if frame.index is None else pixels[frame.index]
        return _rescaled(data, _grey(data, one), frame.index or 0)


def narrow(array: np.ndarray) -> np.ndarray:
    """Return whole numbers as the smallest kept integer type, all else as float32."""
    if array.dtype.kind in "iu":
        low, high = int(array.min(initial=0)), int(array.max(initial=0))
        for kind in (np.uint8, np.int16, np.uint16):
            if array.dtype.itemsize >= np.dtype(kind).itemsize and (
                np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
            ):
                # uint8 only for what was 8 bits: a CT stays int16 whatever its values
                if kind is np.uint8 and array.dtype.itemsize > 1:
                    continue
                return array.astype(kind)
    return array.astype(np.float32)


@lru_cache(maxsize=2)
def _decoded(path: Path) -> tuple[Dataset, np.ndarray]:
    data = read_dataset(path)
    if "PixelData" not in data:
        raise FlamesError(f"{path} holds no pixels", "copy the file again from the archive")
    with quiet():
        try:
            pixels = _decode(data)
        except (RuntimeError, NotImplementedError) as error:
            raise FlamesError(
                f"{path} is compressed as {_syntax(data)} and cannot be decoded: {error}",
                "it may be truncated; else export the series uncompressed",
            ) from error
        except Exception as error:
            # Decoders raise their own; whatever it is, the file is what has to be looked at.
            raise FlamesError(
                f"{path} cannot be read, it may be truncated: {type(error).__name__}: {error}",
                "copy the file again from the archive, or take it away",
            ) from error
    del data.PixelData
    return data, pixels


def _decode(data: Dataset) -> np.ndarray:
    pixels = pixel_array(data, raw=False)
    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        return apply_color_lut(pixels, data)
    return pixels


def _syntax(data: Dataset) -> str:
    syntax: Any = data.file_meta.get("TransferSyntaxUID")
    return str(syntax.name) if syntax is not None else "an unnamed syntax"


def _grey(data: Dataset, pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 3:
        wide = pixels.dtype.itemsize > 1 and pixels.max(initial=0) > 255
        same = all(np.array_equal(pixels[..., 0], pixels[..., k]) for k in (1, 2))
        grey = pixels[..., 0] if same else np.rint(pixels[..., :3] @ GREY)
        if _palette_depth(data) == 16:
            grey, wide = np.rint(grey / 257.0), False
        return grey.astype(np.uint16 if wide else np.uint8)
    inverted = data.get("PhotometricInterpretation") == "MONOCHROME1"
    # Shown inverted only: what a CT stores is Hounsfield units all the same.
    if inverted and data.get("Modality") != "CT":
        low, high = _stored_range(data)
        return (low + high - pixels.astype(np.int32)).astype(pixels.dtype)
    return pixels


def _palette_depth(data: Dataset) -> int:
    descriptor = data.get("RedPaletteColorLookupTableDescriptor")
    return int(descriptor[2]) if descriptor else 0


def _stored_range(data: Dataset) -> tuple[int, int]:
    bits = int(data.get("BitsStored", 16))
    if data.get("PixelRepresentation", 0):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _rescaled(data: Dataset, pixels: np.ndarray, index: int) -> np.ndarray:
    slope, intercept = _rescale(data, index)
    if (slope, intercept) == (1.0, 0.0):
        return pixels
    if slope.is_integer() and intercept.is_integer():
        return pixels.astype(np.int32) * int(slope) + int(intercept)
    return (pixels * slope + intercept).astype(np.float32)


def _rescale(data: Dataset, index: int) -> tuple[float, float]:
    source: Any = data
    groups = list(data.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    groups += list(data.get("SharedFunctionalGroupsSequence") or [])
    for group in groups:
        if group.get("PixelValueTransformationSequence"):
            source = group.PixelValueTransformationSequence[0]
            break
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    return (
        float(slope) if slope not in (None, "") else 1.0,
        float(intercept) if intercept not in (None, "") else 0.0,
    )
