"""One number a case for the question that comes before the outline: is there tumour at all?"""

from __future__ import annotations

import math

import numpy as np

TOP_SHARE = 0.005
MINIMUM_PIXELS = 16


def presence_score(probabilities: np.ndarray, *, slice_axis: int | None = -1) -> float:
    """Return how sure a model is that a case has tumour, 0 to 1.

    Per slice, the mean of the ``k = max(16, ⌈0.005·pixels⌉)`` highest probabilities; of a volume,
    the highest slice. One bright pixel is not enough, and a small tumour in one slice is. A slice
    with fewer than ``k`` pixels counts whole; constant probabilities ``p`` give ``p``.

    Args:
        probabilities: ``(H, W)`` or ``(X, Y, Z)``, after the sigmoid.
        slice_axis: Axis across the slices of a volume; not used for an image.

    Raises:
        ValueError: The array is empty, or neither an image nor a volume.

    >>> slices = np.zeros((2, 4, 5))
    >>> slices[1, 0, :4] = 0.8
    >>> round(presence_score(slices, slice_axis=0), 6)  # 4·0.8/16
    0.2
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim not in (2, 3) or not probabilities.size:
        raise ValueError(f"probabilities {probabilities.shape} must be (H, W) or (X, Y, Z)")
    if probabilities.ndim == 2:
        slices = probabilities.reshape(1, -1)
    else:
        axis = -1 if slice_axis is None else slice_axis
        slices = np.moveaxis(probabilities, axis, 0).reshape(probabilities.shape[axis], -1)
    pixels = slices.shape[1]
    k = min(pixels, max(MINIMUM_PIXELS, math.ceil(TOP_SHARE * pixels)))
    highest = np.partition(slices, pixels - k, axis=1)[:, pixels - k :]
    return float(highest.mean(axis=1, dtype=np.float64).max())
