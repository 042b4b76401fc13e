"""Slices seen from their corners: what lies in the middle is never in the middle of what is read.

Where images are cropped around their tumours, a model can score well by place alone. Read as four
overlapping crops, one at each corner, an image holds the same tumour, and place says little of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CORNER_SHARE = 0.7
"""Share of each side that a crop of an image seen off-centre has. The middle of the image is in all
four crops, about 70 % of the way from their outer to their inner corners."""


def corner_boxes(height: int, width: int, share: float) -> list[tuple[slice, slice]]:
    """Return rows and columns of four crops of ``share`` of each side, one at each corner.

    From a half on they cover the image.

    >>> corner_boxes(10, 20, 0.7)[0], corner_boxes(10, 20, 0.7)[-1]
    ((slice(0, 7, None), slice(0, 14, None)), (slice(3, 10, None), slice(6, 20, None)))
    """
    tall, wide = (max(1, -(-side // 2), round(side * share)) for side in (height, width))
    return [
        (slice(top, top + tall), slice(left, left + wide))
        for top in (0, height - tall)
        for left in (0, width - wide)
    ]


def predict_corners(
    predict: Callable[[np.ndarray], tuple[np.ndarray, float]], slices: np.ndarray, share: float
) -> tuple[np.ndarray, float]:
    """Return probabilities ``(N, H, W)`` of slices seen from their corners, and presence.

    Probabilities are the mean over the crops that hold a pixel, presence is that of the crop which
    is surest: a tumour that one of them holds is there.

    Args:
        predict: Gives probabilities and presence of slices of any size.
        slices: ``(N, H, W)``, normalised.
        share: Share of each side that a crop has, from a half on.
    """
    total = np.zeros(slices.shape, np.float32)
    seen = np.zeros(slices.shape[1:], np.float32)
    presences = []
    height, width = slices.shape[1:]
    for rows, columns in corner_boxes(height, width, share):
        probs, presence = predict(slices[:, rows, columns])
        total[:, rows, columns] += probs
        seen[rows, columns] += 1
        presences.append(presence)
    return total / seen, max(presences)
