"""Does a mask lie where the image has an edge? Masks saved with an offset do not.

The score of a place is the mean step in brightness across the mask's outline, inside to outside,
whatever its sign. It is taken for every shift up to `REACH` of the picture at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import fft, ndimage

SIDE = 128
SIGMA = 1.5
REACH = 16
"""Largest shift looked at, in pixels of a picture fitted into `SIDE`."""
NEAR = 4
"""Shifts this small are taken for the annotator's hand."""


@dataclass(frozen=True)
class Place:
    """Where a mask would fit best."""

    shift: tuple[float, float]
    """Rows and columns by which to move the mask, as shares of the picture's longer side."""
    gain: float
    """Score there over the best score within `NEAR`; 1 where the mask lies well."""


def step_map(image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Return the score for shifts of -`REACH` to `REACH` rows and columns, centre is no shift.

    Args:
        image: ``(H, W)``, normalised.
        mask: ``(H, W)``, 1 inside.

    Returns:
        ``(2 * REACH + 1, 2 * REACH + 1)``, at least 0; None where the mask has no outline.
    """
    scale = SIDE / max(image.shape)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = _fit(image, size)
    inside = _fit(mask, size)
    if inside.max() - inside.min() < 0.5:
        return None
    total = np.zeros((SIDE + 2 * REACH, SIDE + 2 * REACH))
    weight = 0.0
    for axis in (0, 1):
        step = ndimage.gaussian_filter1d(ndimage.gaussian_filter(picture, SIGMA), 1.0, axis, 1)
        normal = ndimage.gaussian_filter1d(ndimage.gaussian_filter(inside, 1.0), 1.0, axis, 1)
        total += fft.irfft2(
            fft.rfft2(step, total.shape) * np.conj(fft.rfft2(normal, total.shape)), total.shape
        )
        weight += float(np.abs(normal).sum())
    around = np.roll(total, (REACH, REACH), axis=(0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
    return np.abs(around) / weight


def best_place(scores: np.ndarray) -> Place:
    """Return where ``scores``, one map of `step_map` or the mean of many, is highest."""
    rows, columns = np.indices(scores.shape) - REACH
    near = np.maximum(abs(rows), abs(columns)) <= NEAR
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    at = (int(row) - REACH, int(column) - REACH)
    gain = float(scores.max() / max(scores[near].max(), 1e-9))
    return Place((at[0] / SIDE, at[1] / SIDE), gain)


def _fit(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    small = Image.fromarray(np.asarray(array, dtype=np.float32))
    return np.asarray(small.resize(size, Image.Resampling.BOX), dtype=float)
