"""An open PNG, JPG or TIFF becomes an array, the way up that viewers show it."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by the orientation that its EXIF data says."""


def upright(picture: Image.Image) -> Image.Image:
    """Return the picture turned and mirrored as its EXIF data says."""
    # Pillow turns TIFF while it loads, and then says no orientation. Where it maps the file into
    # memory, as it does by name, it swaps the sides of what is to be turned before it reads.
    if isinstance(picture, TiffImageFile):
        picture.filename = ""
    picture.load()
    turn = TURNS.get(_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> object:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        # Damaged EXIF data says nothing; viewers show such a picture as it lies.
        return None


def pixels(picture: Image.Image) -> np.ndarray:
    """Return ``(H, W)`` or, of colour, ``(H, W, 3)``; transparency is dropped."""
    if picture.mode in ("L", "F"):
        return np.asarray(picture)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        narrow = values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max
        return values.astype(np.uint16 if narrow else np.float32)
    if picture.mode in ("1", "LA"):
        return np.asarray(picture.convert("L"))
    if picture.mode == "P" and "transparency" in picture.info:
        return np.asarray(picture.convert("RGBA"))[..., :3]
    return np.asarray(picture.convert("RGB"))
