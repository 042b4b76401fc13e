"""What is inside of a mask that comes as a picture: by value, palette, colour or transparency.

Without a word of the user every value but 0 is inside. Only where values are smeared, by JPG or by
smooth outlines, is it the brighter half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from flames.data.picture_pixels import pixels, upright
from flames.errors import FlamesError

FEW_VALUES = 16
"""Up to so many values, 0 among them, are labels; more are smeared."""
GREY_SHARE = 0.02
"""Share of a smeared mask's pixels that may be neither dark nor bright."""
SMEAR = 4
"""Pixels from the bright part within which grey is its smeared outline."""
FAINT = 16
"""JPG moves values by as much: a mask must be brighter."""
LOSSY_FORMATS = ("JPEG", "MPO")
LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")


@dataclass(frozen=True, eq=False)
class MaskPixels:
    """A mask as its file holds it; all arrays ``(H, W)``, of several pages one below the other."""

    labels: np.ndarray
    """Label values: of a palette its index, unless only the colours tell what is outside."""
    bright: np.ndarray
    """Values as a viewer shows them: of a colour, its brightest channel."""
    opacity: np.ndarray | None
    """None where there is no transparency."""
    lossy: bool
    """True where the file keeps values only nearly."""
    unclear: bool
    """True where a palette does not tell what is outside."""
    pages: int = 1
    """How many lie one below the other."""

    @property
    def most_values(self) -> int:
        """Return how many label values a page has at most: pages may number what is in them on."""
        return max(len(np.unique(page)) for page in np.split(self.labels, self.pages))


def mask_pixels(picture: Image.Image) -> MaskPixels:
    """Return what a page of an open mask holds, as it is; see `whole_mask`."""
    compression = picture.info.get("compression")
    lossy = picture.format in LOSSY_FORMATS or compression in LOSSY_COMPRESSIONS
    picture = upright(picture)
    opacity = _opacity(picture)
    if picture.mode == "P":
        labels, bright, unclear = _of_palette(picture)
        return MaskPixels(labels, bright, opacity, lossy, unclear)
    values = pixels(picture)
    values = values if values.ndim == 2 else values.max(axis=2)
    return MaskPixels(values, values, opacity, lossy, unclear=False)


def whole_mask(pages: Sequence[MaskPixels]) -> MaskPixels:
    """Return the mask of which these are all pages, of one width.

    What is the same everywhere, in all pages, tells nothing: neither one transparency, nor one
    colour where nothing of it can be seen.
    """
    labels, bright = (np.concatenate([getattr(p, n) for p in pages]) for n in ("labels", "bright"))
    opacity = None
    if any(page.opacity is not None for page in pages):
        each = [p.opacity if p.opacity is not None else np.full_like(p.bright, 255) for p in pages]
        opacity = np.concatenate(each)
        if not opacity.any() and np.ptp(labels) == 0:
            labels, bright = np.zeros_like(labels), np.zeros_like(bright)
        opacity = None if np.ptp(opacity) == 0 else opacity
    lossy, unclear = (any(getattr(page, n) for page in pages) for n in ("lossy", "unclear"))
    return MaskPixels(labels, bright, opacity, lossy, unclear, len(pages))


def label_values(mask: MaskPixels) -> np.ndarray:
    """Return the values that a user can name; of one colour everywhere, the opacity."""
    if mask.opacity is not None and np.ptp(mask.labels) == 0:
        return mask.opacity
    return mask.labels


def inside_of(path: Path, mask: MaskPixels, *, any_colour: bool = False) -> np.ndarray:
    """Return a mask as uint8, 1 inside, in the shape of its arrays.

    Args:
        path: What an error names.
        mask: What the file at ``path`` holds.
        any_colour: Whether every colour but black is inside, however many colours there are.

    Raises:
        FlamesError: It is a photograph rather than a mask, or does not tell what is outside.
    """
    if not (mask.labels >= 0).all():
        raise FlamesError(
            f"{path} holds values below 0 or NaN", "give a mask with 0 outside and 1 inside"
        )
    if mask.unclear and mask.opacity is None and not any_colour:
        raise FlamesError(
            f"the palette of {path} does not tell what is outside: "
            "its first colour is not black, or black is there twice",
            "save the mask in grey values or colours, black outside",
        )
    inside = _by_colour(path, mask, any_colour)
    return inside if mask.opacity is None else _with_opacity(path, inside, mask)


def _by_colour(path: Path, mask: MaskPixels, any_colour: bool) -> np.ndarray:
    if any_colour and not mask.lossy:
        return (mask.bright > 0).astype(np.uint8)
    if not mask.lossy and mask.most_values <= FEW_VALUES:
        return (mask.labels != 0).astype(np.uint8)
    if mask.lossy and 0 < mask.bright.max() < FAINT:
        raise FlamesError(
            f"{path} is a JPG whose brightest value is {mask.bright.max()}: JPG changes values by "
            "as much",
            "give the mask as PNG",
        )
    return _brighter_half(path, mask.bright, FAINT if mask.lossy else 0)


def _brighter_half(path: Path, values: np.ndarray, faint: int) -> np.ndarray:
    share = values / max(float(values.max()), np.finfo(float).tiny)
    grey = (share > 0.1) & (share < 0.9) & (values > faint)
    if grey.mean() > GREY_SHARE:
        raise FlamesError(
            f"{path} is not a mask of two values: {grey.mean():.0%} of it is grey",
            "give a black and white mask, or labels as PNG; check that it is not the image itself",
        )
    inside = (share > 0.5).astype(np.uint8)
    near = Image.fromarray(inside).filter(ImageFilter.MaxFilter(2 * SMEAR + 1))
    if (grey & (np.asarray(near) == 0)).any():
        raise FlamesError(
            f"{path} is not a mask of two values: it has grey parts away from the bright ones",
            "give a black and white mask, or labels as PNG with at most "
            f"{FEW_VALUES} values, 0 among them",
        )
    return inside


def _with_opacity(path: Path, by_colour: np.ndarray, mask: MaskPixels) -> np.ndarray:
    """Return the opaque part where colours tell nothing, and refuse what they contradict."""
    opacity = mask.opacity
    assert opacity is not None
    shape = MaskPixels(opacity, opacity, None, mask.lossy, unclear=False, pages=mask.pages)
    opaque = _by_colour(path, shape, False)
    if mask.unclear or np.ptp(by_colour) == 0:
        return opaque
    against = ((opaque == 1) & (by_colour == 0)) | ((opacity == 0) & (by_colour == 1))
    if against.any():
        raise FlamesError(
            f"{path} says one thing by its colours and another by its transparency, "
            f"in {against.sum()} pixels",
            "save the mask without transparency, black outside",
        )
    return by_colour


def _opacity(picture: Image.Image) -> np.ndarray | None:
    if picture.mode.startswith(("I", "F")) or not picture.has_transparency_data:
        return None
    return np.asarray(picture.convert("RGBA"))[..., 3]


def _of_palette(picture: Image.Image) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return labels, brightness, and whether index 0 may be outside as well as inside.

    Labels are the index where no other index is black. Programs that save space sort their
    palettes: where black is not index 0, only colours tell what is outside.
    """
    index, black = np.asarray(picture), _black(picture)
    bright = pixels(picture).max(axis=2)
    used = np.unique(index)
    first, others = bool(black[0]), bool(black[used[used > 0]].any())
    by_index = first and (not others or bool(black[used].all()))
    unclear = used[0] == 0 and first == others and not by_index
    return index if by_index else bright, bright, bool(unclear)


def _black(picture: Image.Image) -> np.ndarray:
    """Return which of 256 indices are black."""
    colours = np.zeros((256, 3), np.uint8)
    given = np.array(picture.getpalette("RGB"), np.uint8)
    colours.reshape(-1)[: len(given)] = given
    return np.asarray(~colours.any(axis=1))
