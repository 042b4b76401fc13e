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
COUNTED = ("uint8", "int16", "uint16")
"""Values of these types are counted, which is several times faster than partly sorting them."""
COUNTED_AT_ONCE = 1 << 16


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
    if values.dtype.name in COUNTED and values.size:
        low, high = _counted_window(values, modality)
    else:
        low, high = _sorted_window(values, modality)
    return (low, high) if high > low else (low, low + 1.0)


def normalise(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Return ``image`` as float32 with ``window`` mapped to -1 and 1, and clipped there.

    >>> normalise(np.array([0, 10, 25, 99]), (10, 50))  # 2 * (25 - 10) / 40 - 1
    array([-1.  , -1.  , -0.25,  1.  ], dtype=float32)
    """
    low, high = window
    scaled = (np.asarray(image, dtype=np.float32) - np.float32(low)) * np.float32(2 / (high - low))
    return np.clip(scaled - 1, -1, 1, dtype=np.float32)


def _sorted_window(values: np.ndarray, modality: Modality) -> tuple[float, float]:
    if modality == "MR" and values.size:
        least, most = float(values.min()), float(np.percentile(values, PERCENTILES[1]))
        values = _unless_empty(values[values > _threshold(least, most)], values)
    elif modality == "CT":
        values = values[values != 0]
    if values.size == 0:
        return 0.0, 0.0
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _counted_window(values: np.ndarray, modality: Modality) -> tuple[float, float]:
    levels, counts = _counts(values)
    if modality == "MR":
        most = _percentile(levels, counts, PERCENTILES[1])
        front = levels > _threshold(float(levels[0]), most)
        levels, counts = _unless_empty(levels[front], levels), _unless_empty(counts[front], counts)
    elif modality == "CT":
        levels, counts = levels[levels != 0], counts[levels != 0]
    if levels.size == 0:
        return 0.0, 0.0
    low, high = (_percentile(levels, counts, q) for q in PERCENTILES)
    return (low, high) if high > low else (float(levels[0]), float(levels[-1]))


def _counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels that occur, sorted, and how often; piece by piece, to stay in the cache."""
    least, most = int(values.min()), int(values.max())
    counts = np.zeros(most - least + 1, np.int64)
    for start in range(0, values.size, COUNTED_AT_ONCE):
        piece = values[start : start + COUNTED_AT_ONCE].astype(np.intp) - least
        counts += np.bincount(piece, minlength=len(counts))
    there = np.flatnonzero(counts)
    return there + least, counts[there]


def _percentile(levels: np.ndarray, counts: np.ndarray, share: float) -> float:
    """Return what `numpy.percentile` returns of the counted values, digit by digit."""
    last = int(counts.sum()) - 1
    place = last * (share / 100)
    before = int(place)
    ends = np.cumsum(counts)
    a = int(levels[np.searchsorted(ends, before, side="right")])
    b = int(levels[np.searchsorted(ends, min(before + 1, last), side="right")])
    part = place - before
    return a + (b - a) * part if part < 0.5 else b - (b - a) * (1 - part)


def _threshold(least: float, most: float) -> float:
    return least + BACKGROUND_SHARE * (most - least)


def _unless_empty(found: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return found if found.size else otherwise


CONSTANTS = (
    "CT_WINDOW",
    "HU_LOW",
    "PERCENTILES",
    "BACKGROUND_SHARE",
    "COUNTED",
    "COUNTED_AT_ONCE",
)
WINDOW_PARTS = (
    _sorted_window,
    _counted_window,
    _counts,
    _percentile,
    _threshold,
    _unless_empty,
)
"""What `intensity_window` is made of: an exported bundle carries it along, with `CONSTANTS`."""
