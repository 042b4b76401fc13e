"""Weighted means of named arrays: the only arithmetic that a strategy needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np

Arrays = Mapping[str, np.ndarray]
BLOCK = 1 << 15
"""Numbers added at a time."""
WINDOW = 8
"""Models whose copies of one array are open at a time."""


def weighted_mean(models: Sequence[Arrays], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """Return ``Σ w_j θ_j / Σ w_j`` for every named array.

    Sums are kept in float64 and returned in the arrays' own dtype. Integer arrays, such as a batch
    norm's counter, take the largest value: a mean of counters counts nothing. One array of
    `WINDOW` models is open at a time, beside the sum, so memory does not grow with the number of
    models that are read lazily from disk.

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
    shares = [weight / total for weight in weights]
    return {name: _mean(name, (m[name] for m in models), shares) for name in models[0]}


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


def _mean(name: str, values: Iterable[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    """Return one array of the mean; `WINDOW` models are open at a time."""
    pairs = zip((np.asarray(value) for value in values), shares, strict=True)
    window = list(islice(pairs, WINDOW))
    first = window[0][0]
    counts = not np.issubdtype(first.dtype, np.floating)
    total = first.copy() if counts else np.zeros(first.shape, np.float64)
    while window:
        for value, _ in window:
            if value.shape != total.shape:
                raise ValueError(
                    f"shapes differ between models: {name} is {total.shape} and {value.shape}"
                )
            if counts:
                np.maximum(total, value, out=total)
        if not counts:
            _add(total.reshape(-1), [(value.reshape(-1), share) for value, share in window])
        window = list(islice(pairs, WINDOW))
    return np.asarray(total.astype(first.dtype))


def _add(total: np.ndarray, window: Sequence[tuple[np.ndarray, float]]) -> None:
    """Add ``share · value`` of each to ``total`` in float64, a block at a time that fits a cache.

    Each number is added in the order of the models, so the blocks do not change the sum.
    """
    product = np.empty(min(BLOCK, total.size))
    for start in range(0, total.size, BLOCK):
        part = slice(start, start + BLOCK)
        sums = total[part]
        block = product[: sums.size]
        for value, share in window:
            block[...] = value[part]
            block *= share
            sums += block
