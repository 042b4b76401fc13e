"""PNG, JPG and TIFF become arrays: images in their own intensities, masks as 0 and 1."""

from __future__ import annotations

import math
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from flames.errors import FlamesError

GREY_SHARE = 0.02
"""Share of a mask's pixels that may be neither dark nor bright, as smoothed outlines are."""
_OPENING = threading.Lock()


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
    """Return a picture as ``(H, W)``, uint8, uint16 or float32.

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
    pages = [_one_picture(path, p, channel) for p in _pages(path)]
    if any(page.shape != pages[0].shape for page in pages):
        raise FlamesError(f"{path} has pages of several sizes", "save its pages as separate files")
    return np.stack(pages)


def read_mask(path: Path, *, any_colour: bool = False) -> np.ndarray:
    """Return a mask as ``(H, W)``, 1 inside.

    Inside is the brighter half of the values that occur, or, with ``any_colour``, all but black.

    Raises:
        FlamesError: The file is damaged, or is a photograph rather than a mask.
    """
    values = read_values(path)
    if any_colour:
        return (values > 0).astype(np.uint8)
    top = float(values.max(initial=0))
    share = values / top if top > 0 else values.astype(float)
    grey = float(np.mean((share > 0.1) & (share < 0.9)))
    if grey > GREY_SHARE:
        raise FlamesError(
            f"{path} is not a mask of two values: {grey:.0%} of it is grey",
            "give a black and white mask; check that it is not the image itself",
        )
    return (share > 0.5).astype(np.uint8)


def read_values(path: Path) -> np.ndarray:
    """Return a mask's values as ``(H, W)``; of a colour, its brightest channel."""
    pixels = _pixels(path)
    return pixels if pixels.ndim == 2 else pixels.max(axis=2)


def _pixels(path: Path) -> np.ndarray:
    pages = _pages(path, most=1)
    if pages[0].size == 0:
        raise FlamesError(f"{path} has no pixel", "take it away")
    return pages[0]


def _pages(path: Path, most: int | None = None) -> list[np.ndarray]:
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
            pages.append(_page(picture))
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


def _page(picture: Image.Image) -> np.ndarray:
    if picture.mode in ("L", "F"):
        return np.asarray(picture)
    if picture.mode.startswith("I"):
        pixels = np.asarray(picture)
        narrow = pixels.min() >= 0 and pixels.max() <= np.iinfo(np.uint16).max
        return pixels.astype(np.uint16 if narrow else np.float32)
    if picture.mode in ("1", "LA"):
        return np.asarray(picture.convert("L"))
    return np.asarray(picture.convert("RGB"))
