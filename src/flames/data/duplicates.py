"""Near-duplicate pictures: frames of one scan, copies, crops' recompressions, mirror images.

Where patients are not recorded, a group of near-duplicates is what a split must keep together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 32
BLUR = 3.0
"""Sigma, in pixels of `SIDE`, of the brightness that every scan of a kind shares."""
THRESHOLD = 0.75
"""Correlation from which two pictures are near-duplicates: chosen by eye on breast and ovary scans.

Above it nearly every pair is one scan seen twice. A false pair costs a split nothing, a missed one
leaks, so it lies at the low end of the range in which the number of groups hardly moves.
"""

BLOCK = 1024
"""Pictures that are held against all others at a time."""


def signature(image: np.ndarray) -> np.ndarray:
    """Return ``image`` small, without its coarse brightness, of mean 0 and length 1.

    The correlation of two pictures is the product of their signatures; a blank picture has 0.
    """
    small = Image.fromarray(np.asarray(image, dtype=np.float32)).resize(
        (SIDE, SIDE), Image.Resampling.BOX
    )
    values = np.asarray(small, dtype=np.float32)
    detail = values - ndimage.gaussian_filter(values, BLUR)
    detail -= detail.mean()
    length = float(np.linalg.norm(detail))
    return detail / length if length > 1e-3 else np.zeros_like(detail)


def similar_pairs(
    signatures: np.ndarray, threshold: float = THRESHOLD
) -> list[tuple[int, int, float]]:
    """Return pairs of rows at or above ``threshold``, mirrored left to right too, likest first.

    Args:
        signatures: ``(N, SIDE, SIDE)``, as `signature` makes them.
        threshold: Least correlation.
    """
    flat = signatures.reshape(len(signatures), -1)
    mirrored = signatures[:, :, ::-1].reshape(len(signatures), -1)
    pairs = []
    for start in range(0, len(flat), BLOCK):
        rows = flat[start : start + BLOCK]
        likeness = np.maximum(rows @ flat.T, rows @ mirrored.T)
        first, second = np.nonzero(np.triu(likeness >= threshold, k=1 + start))
        pairs += [(start + int(i), int(j), float(likeness[i, j]))
                  for i, j in zip(first, second, strict=True)]  # fmt: skip
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def duplicate_groups(
    signatures: Mapping[str, np.ndarray], threshold: float = THRESHOLD
) -> dict[str, str]:
    """Return the group of every picture by name: the first name, sorted, among its likes.

    ``signatures`` are as `signature` makes them.

    Likeness carries over: when A is like B and B like C, all three are one group.
    """
    names = sorted(signatures)
    if not names:
        return {}
    pairs = similar_pairs(np.stack([signatures[n] for n in names]), threshold)
    roots = join(len(names), [(i, j) for i, j, _ in pairs])
    return {name: names[root] for name, root in zip(names, roots, strict=True)}


def join(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Return the least member of each number's set once every pair is in one set.

    >>> join(5, [(3, 4), (1, 3)])
    [0, 1, 2, 1, 1]
    """
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    return [root(i) for i in range(count)]
