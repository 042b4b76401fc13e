"""Weighted means of named arrays: the only arithmetic that a strategy needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]


def weighted_mean(models: Sequence[Arrays], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """Return ``Σ w_j θ_j / Σ w_j`` for every named array.

    Sums are kept in float64 and returned in the arrays' own dtype. Integer arrays, such as a batch
    norm's counter, take the largest value: a mean of counters counts nothing. One name at a time is
    in memory for all models, so models may be read lazily from disk.

    Raises:
        ValueError: Nothing to average, weights that do not fit, sum to zero or are negative, or
            names and shapes that differ between models.

    >>> a, b = {"w": np.array([1.0])}, {"w": np.array([4.0])}
    >>> float(weighted_mean([a, b], [2, 1])["w"][0])  # (2·1 + 1·4) / 3
    2.0
    """
    if not models or len(models) != len(weights):
        raise ValueError(f"{len(models)} models and {len(weights)} weights: nothing to average")
    total = float(sum(weights))
    if total <= 0 or min(weights) < 0:
        raise ValueError(f"weights must be non-negative with a positive sum, got {list(weights)}")
    names = set(models[0])
    for model in models[1:]:
        if set(model) != names:
            raise ValueError(f"models differ in arrays {sorted(names ^ set(model))[:3]}")
    return {name: _mean([m[name] for m in models], weights, total) for name in models[0]}


def interpolate(own: Arrays, peers: Arrays, alpha: float) -> dict[str, np.ndarray]:
    """Return ``α·own + (1 − α)·peers``; α = 1 is ``own`` bit for bit.

    >>> own, peers = {"w": np.array([1.0])}, {"w": np.array([5.0])}
    >>> float(interpolate(own, peers, 0.75)["w"][0])  # 0.75·1 + 0.25·5
    2.0
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    if alpha == 1:
        return {name: np.array(own[name]) for name in own}
    return weighted_mean([own, peers], [alpha, 1 - alpha])


def _mean(values: Sequence[np.ndarray], weights: Sequence[float], total: float) -> np.ndarray:
    first = values[0]
    if any(value.shape != first.shape for value in values):
        raise ValueError(f"shapes differ between models: {[value.shape for value in values]}")
    if not np.issubdtype(first.dtype, np.floating):
        return np.asarray(np.max(np.stack(values), axis=0)).astype(first.dtype)
    result = np.zeros(first.shape, np.float64)
    for value, weight in zip(values, weights, strict=True):
        result += (weight / total) * value.astype(np.float64)
    return result.astype(first.dtype)
