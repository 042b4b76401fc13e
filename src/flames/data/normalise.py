"""Intensities become [-1, 1]: one robust window a case, chosen by modality."""

from __future__ import annotations

import numpy as np

from flames.data.store import Modality

CT_WINDOW = (-200.0, 300.0)
"""Hounsfield units; soft tissue, fat and contrast lie inside."""
HU_LOW = -200.0
"""A CT without any value this low holds no air and no fat: it is not in Hounsfield units."""
PERCENTILES = (1.0, 99.5)
BACKGROUND_SHARE = 0.05
"""Share of the way from the lowest value to `PERCENTILES`' high one that is still background."""


def looks_like_hu(image: np.ndarray) -> bool:
    """Return whether a CT image can be in Hounsfield units, by its lowest value."""
    return float(image.min()) <= HU_LOW


def intensity_window(
    image: np.ndarray, modality: Modality, ct_window: tuple[float, float] = CT_WINDOW
) -> tuple[float, float]:
    """Return the values of ``image`` that `normalise` maps to -1 and 1.

    Ultrasound: the 1st and 99.5th percentile of all pixels. MR: the same of the voxels that are not
    background. CT: ``ct_window``, or the percentiles of the voxels that are not 0 where the image
    is not in Hounsfield units. An image of one value gets a window of width 1 above it.

    >>> intensity_window(np.arange(201), "US")  # 1 % and 99.5 % of the way from 0 to 200
    (2.0, 199.0)
    >>> intensity_window(np.array([-1000, 40]), "CT")
    (-200.0, 300.0)
    """
    if modality == "CT" and looks_like_hu(image):
        return (float(ct_window[0]), float(ct_window[1]))
    values = np.asarray(image).ravel()
    if modality == "MR":
        values = _foreground(values)
    elif modality == "CT":
        values = values[values != 0]
    if values.size == 0:
        values = np.zeros(1)
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def normalise(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Return ``image`` as float32 with ``window`` mapped to -1 and 1, and clipped there.

    >>> normalise(np.array([0, 10, 25, 99]), (10, 50))  # 2 * (25 - 10) / 40 - 1
    array([-1.  , -1.  , -0.25,  1.  ], dtype=float32)
    """
    low, high = window
    scaled = (np.asarray(image, dtype=np.float32) - np.float32(low)) * np.float32(2 / (high - low))
    return np.clip(scaled - 1, -1, 1, dtype=np.float32)


def _foreground(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(np.percentile(values, PERCENTILES[1]))
    found = values[values > low + BACKGROUND_SHARE * (high - low)]
    return found if found.size else values
