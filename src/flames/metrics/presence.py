"""One number a case for the question that comes before the outline: is there tumour at all?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TOP_SHARE = 0.005
MINIMUM_PIXELS = 16
PRESENCE_GRID: tuple[float, ...] = (
    0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
    0.84, 0.87, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995,
)  # fmt: skip
"""Presence thresholds that are tried; denser where sure models put their scores."""
LEAST_GAIN = 0.01
"""Mean Dice that a presence threshold must gain on validation cases to be used at all."""
MOST_SILENCED = 0.1
"""Share of the validation cases with tumour that a presence threshold may silence."""
Curve = list[list[float]]
"""For each threshold of `PRESENCE_GRID`: the sum of defined Dice, how many there are, and how many
cases with tumour there are and were silenced."""


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


def operating_curve(
    dice: Sequence[float], tumour: Sequence[bool], scores: Sequence[float]
) -> Curve:
    """Return what each threshold of `PRESENCE_GRID` makes of the Dice of some cases.

    A case whose presence score lies below the threshold gets an empty prediction: with tumour its
    Dice is then 0, without it is undefined and left out.

    Args:
        dice: Dice of each case as segmented; NaN where label and prediction are empty.
        tumour: Whether each case has tumour.
        scores: `presence_score` of each case.

    >>> operating_curve([0.8, 0.0], [True, False], [0.9, 0.3])[6:8]  # thresholds 0.3 and 0.35
    [[0.8, 2, 1, 0], [0.8, 1, 1, 0]]
    """
    points: Curve = []
    for threshold in PRESENCE_GRID:
        total, counted, lost = 0.0, 0, 0
        for value, has, score in zip(dice, tumour, scores, strict=True):
            silenced = score < threshold
            if silenced and not has:
                continue
            lost += silenced
            if not math.isnan(value):
                total += 0.0 if silenced else value
                counted += 1
        points.append([round(total, 6), counted, sum(tumour), lost])
    return points


def best_threshold(curves: Sequence[Curve]) -> float:
    """Return the presence threshold with the highest mean Dice over all curves' cases.

    It is 0, which silences nothing, unless another gains at least `LEAST_GAIN` and silences at most
    `MOST_SILENCED` of the cases with tumour: a missed tumour is worse than its lost overlap.

    >>> curve = operating_curve([0.8, 0.6, 0.0], [True, True, False], [0.9, 0.8, 0.3])
    >>> best_threshold([curve])  # mean 1.4/3 before, 1.4/2 from 0.35 on
    0.35
    """
    if not curves:
        return 0.0
    means = []
    for points in zip(*curves, strict=True):
        total, counted, tumours, lost = (sum(numbers) for numbers in zip(*points, strict=True))
        allowed = lost <= MOST_SILENCED * tumours
        means.append(total / counted if counted and allowed else 0.0)
    best = max(range(len(means)), key=lambda place: means[place])
    return PRESENCE_GRID[best] if means[best] >= means[0] + LEAST_GAIN else 0.0
