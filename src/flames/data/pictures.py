"""PNG, JPG and TIFF become arrays: images in their own intensities, masks as 0 and 1."""

from __future__ import annotations

import math
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from flames.data.picture_masks import MaskPixels, inside_of, label_values, mask_pixels, whole_mask
from flames.data.picture_pixels import pixels, upright
from flames.errors import FlamesError

_OPENING = threading.Lock()
Page = TypeVar("Page")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into an error with a remedy."""
    try:
        yield
    except FlamesError:
        raise
    except Exception as error:
        # Readers raise OSError, EOFError, SyntaxError, struct.error, zlib.error and their own.
        if isinstance(error, FileNotFoundError):
            found = f"{path} is not there"
        elif isinstance(error, OSError | EOFError | SyntaxError | ValueError | zlib.error):
            found = f"{path} cannot be read, it may be truncated: {error}"
        else:
            found = f"{path} cannot be read: {type(error).__name__}: {error}"
        raise FlamesError(
            found, "copy the file again from where it came from, or take it away"
        ) from error


def read_picture(path: Path, channel: int | None = None) -> np.ndarray:
    """Return a picture as ``(H, W)``, uint8, uint16 or float32, upright as viewers show it.

    Colour becomes luminance unless ``channel`` chooses one; transparency is dropped.

    Raises:
        FlamesError: The file is damaged, or has no such channel.
    """
    return _one_picture(path, _pixels(path), channel)


def _one_picture(path: Path, pixels: np.ndarray, channel: int | None) -> np.ndarray:
    if pixels.ndim == 2:
        if channel not in (None, 0):
            raise FlamesError(f"{path} has one channel, not channel {channel}", "drop --channel")
        return pixels
    if channel is None:
        if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(
            pixels[..., 0], pixels[..., 2]
        ):
            return np.ascontiguousarray(pixels[..., 0])
        return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    if not 0 <= channel < pixels.shape[2]:
        raise FlamesError(
            f"{path} has channels 0 to {pixels.shape[2] - 1}, not {channel}", "correct --channel"
        )
    return np.ascontiguousarray(pixels[..., channel])


def frame_count(path: Path) -> int:
    """Return how many pictures a file holds, such as the pages of a TIFF stack."""
    with reading(path), _opened(path) as picture:
        return int(getattr(picture, "n_frames", 1))


def read_frames(path: Path, channel: int | None = None) -> np.ndarray:
    """Return a stack of pictures as ``(N, H, W)``.

    Raises:
        FlamesError: The file is damaged, or its pages differ in size.
    """
    pages = [_one_picture(path, p, channel) for p in _pages(path, _page)]
    _check_one_size(path, pages)
    return np.stack(pages)


def _check_one_size(path: Path, pages: list[np.ndarray]) -> None:
    if any(page.shape != pages[0].shape for page in pages):
        raise FlamesError(f"{path} has pages of several sizes", "save its pages as separate files")


def read_mask(path: Path, *, any_colour: bool = False, frames: bool = False) -> np.ndarray:
    """Return a mask as ``(H, W)``, 1 inside; see `flames.data.picture_masks`.

    Args:
        path: The file.
        any_colour: Whether every colour but black is inside, however many there are.
        frames: Whether it is ``(N, H, W)``, of all pages of the file.

    Raises:
        FlamesError: The file is damaged, is a photograph rather than a mask, or does not tell what
            is outside.
    """
    return _mask(path, partial(inside_of, path, any_colour=any_colour), frames)


def read_values(path: Path, *, frames: bool = False) -> np.ndarray:
    """Return a mask's values: of a palette its index, of a colour its brightest.

    They are ``(H, W)``, or with ``frames`` ``(N, H, W)`` of all pages.
    """
    return _mask(path, label_values, frames)


def _mask(path: Path, read: Callable[[MaskPixels], np.ndarray], frames: bool) -> np.ndarray:
    pages = _pages(path, mask_pixels, most=None if frames else 1)
    shape = pages[0].labels.shape
    _check_one_size(path, [page.labels for page in pages])
    if 0 in shape:
        raise FlamesError(f"{path} has no pixel", "take it away")
    values = read(whole_mask(pages))
    return values.reshape(len(pages), *shape) if frames else values


def _pixels(path: Path) -> np.ndarray:
    pages = _pages(path, _page, most=1)
    if pages[0].size == 0:
        raise FlamesError(f"{path} has no pixel", "take it away")
    return pages[0]


def _pages(
    path: Path, decode: Callable[[Image.Image], Page], most: int | None = None
) -> list[Page]:
    with reading(path), _opened(path) as picture:
        count = int(getattr(picture, "n_frames", 1))
        if most is not None and count > most:
            raise FlamesError(
                f"{path} holds {count} pictures, not one", "save its pages as separate files"
            )
        pages = []
        for number in range(count):
            if count > 1:
                picture.seek(number)
            _check_size(picture)
            _check_depth(path, picture)
            pages.append(decode(picture))
    return pages


def _opened(path: Path) -> Image.Image:
    # Filters of warnings belong to the process: one thread at a time may change them.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path)


def _check_size(picture: Image.Image) -> None:
    """Refuse a later page that `PIL.Image.open`, which looks at the first, would have refused."""
    if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise ValueError(f"{picture.width} x {picture.height} pixels are too many")


def _check_depth(path: Path, picture: Image.Image) -> None:
    """Refuse colours of 16 bits, of which Pillow keeps the upper 8: a label of 1 would be 0."""
    raw_modes = [str(tile[3]) for tile in getattr(picture, "tile", ())]
    if len(picture.getbands()) > 1 and any(";16" in mode for mode in raw_modes):
        raise FlamesError(
            f"{path} has channels of 16 bits, of which only 8 can be read",
            "save it in grey values of 16 bits without transparency, or in colours of 8 bits",
        )


def _page(picture: Image.Image) -> np.ndarray:
    return pixels(upright(picture))
