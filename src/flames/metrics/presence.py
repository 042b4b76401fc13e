"""One number a case for the question that comes before the outline: is there tumour at all?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
"""For each threshold of `PRESENCE_GRID`: the sum of defined Dice, how many there are, how many
cases with tumour there are and were silenced, and how many without."""
FEWEST = 5
"""Validation cases with tumour, and without, that a calibrated probability needs at least."""


@dataclass(frozen=True)
class PresenceRule:
    """What validation cases say of a model's presence scores."""

    threshold: float = 0.0
    """Cases with a lower score get an empty mask."""
    calibration: tuple[tuple[float, float], ...] = ()
    """Presence scores, rising, with the probability of tumour at each; none where too few cases
    say it."""

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> PresenceRule:
        """Return the rule that suits all curves' cases together."""
        return cls(best_threshold(curves), calibrate(curves))

    def probability(self, score: float) -> float | None:
        """Return the probability of tumour at a presence score, None where it is not known.

        >>> PresenceRule(calibration=((0.2, 0.1), (0.6, 0.5))).probability(0.4)
        0.3
        """
        if not self.calibration:
            return None
        scores, probabilities = zip(*self.calibration, strict=True)
        return round(float(np.interp(score, scores, probabilities)), 6)


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
    [[0.8, 2, 1, 0, 1, 0], [0.8, 1, 1, 0, 1, 1]]
    """
    points: Curve = []
    for threshold in PRESENCE_GRID:
        total, counted, lost, spared = 0.0, 0, 0, 0
        for value, has, score in zip(dice, tumour, scores, strict=True):
            silenced = score < threshold
            if silenced and not has:
                spared += 1
                continue
            lost += silenced
            if not math.isnan(value):
                total += 0.0 if silenced else value
                counted += 1
        with_tumour = sum(tumour)
        points.append(
            [round(total, 6), counted, with_tumour, lost, len(tumour) - with_tumour, spared]
        )
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
        total, counted, tumours, lost, *_ = (sum(numbers) for numbers in zip(*points, strict=True))
        allowed = lost <= MOST_SILENCED * tumours
        means.append(total / counted if counted and allowed else 0.0)
    best = max(range(len(means)), key=lambda place: means[place])
    return PRESENCE_GRID[best] if means[best] >= means[0] + LEAST_GAIN else 0.0


def calibrate(curves: Sequence[Curve]) -> tuple[tuple[float, float], ...]:
    """Return the probability of tumour by presence score, from counts alone.

    Between two thresholds of `PRESENCE_GRID` the curves count cases with and without tumour. The
    rising line nearest to their shares (isotonic regression, weighted by cases) is the probability
    among cases as frequent as these; it stays one case and a half away from 0 and 1. With fewer
    than `FEWEST` cases of a kind nothing can be said.

    >>> scores = [0.31] * 8 + [0.93] * 8
    >>> free = operating_curve([0.0] * 16, [False] * 6 + [True] * 2 + [True] * 8, scores)
    >>> calibrate([free])  # 2 of 8, and all of 8
    ((0.325, 0.25), (0.93, 0.916667))
    """
    if not curves:
        return ()
    points = [[sum(numbers) for numbers in zip(*p, strict=True)] for p in zip(*curves, strict=True)]
    tumours, free = points[0][2], points[0][4]
    if min(tumours, free) < FEWEST:
        return ()
    from sklearn.isotonic import IsotonicRegression

    ends = [*points[1:], [0.0, 0.0, tumours, tumours, free, free]]
    edges = [*PRESENCE_GRID[1:], 1.0]
    bins = []
    for low, high, here, then in zip(PRESENCE_GRID, edges, points, ends, strict=True):
        with_tumour, without = then[3] - here[3], then[5] - here[5]
        if with_tumour + without > 0:
            bins.append(((low + high) / 2, with_tumour, with_tumour + without))
    scores, hits, counts = (np.array(column, float) for column in zip(*bins, strict=True))
    least = 1.5 / (tumours + free + 2)
    fit = IsotonicRegression(y_min=least, y_max=1 - least)
    rising = fit.fit_transform(scores, hits / counts, sample_weight=counts)
    return tuple(
        (round(float(s), 6), round(float(p), 6)) for s, p in zip(scores, rising, strict=True)
    )
