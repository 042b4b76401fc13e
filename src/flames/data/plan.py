"""A modality's plan in three dimensions, derived from its hospitals' fingerprints alone.

In the manner of nnU-Net: a spacing from medians, a patch from the median volume and a budget of
voxels, and a network that stays inside the slices while these are much thicker than a pixel.
Isensee et al., Nature Methods 18, 2021. What hospitals share for it are percentiles and counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from flames.config import PlanConfig
from flames.data.fingerprint import Fingerprint, Range
from flames.errors import FlamesError

VOXELS = 96 * 96 * 16
"""Of a patch: as many as nine images of 128 pixels."""
ANISOTROPIC = 3.0
"""Slices this much thicker than pixels count as thick; their distance is then the 5th percentile's,
so that the thinner volumes keep their slices."""
ALIKE = 2.0
"""An axis is pooled and convolved while its voxels are at most this much longer than the finest."""
LEAST = 4
"""Voxels that pooling leaves of a patch, at least."""
LEAST_LEVELS, LEVELS = 3, 5
"""Of the network: its kind needs three, and in two dimensions it has five."""


def make_plan(fingerprints: Sequence[Fingerprint]) -> PlanConfig:
    """Return the plan of one modality from the fingerprints of its sites.

    Raises:
        FlamesError: There is none, or a site has single images.
    """
    if not fingerprints:
        raise FlamesError("no fingerprint to plan from", "name at least one store")
    first = fingerprints[0]
    for site in fingerprints:
        if site.modality != first.modality:
            raise FlamesError(
                f"fingerprints of {first.modality} and {site.modality} make no common plan",
                "plan each modality from its own sites",
            )
        if site.sides is None or site.between is None:
            raise FlamesError(
                f"a site of {site.modality} {site.organ} holds single images, and three "
                "dimensions need volumes",
                "leave it out, or train with data.dimensions = 2",
            )
    spacing = _spacing([s for s in fingerprints if s.spacing_unit == "mm"])
    sides = [_at_spacing(site, spacing) for site in fingerprints]
    weights = [site.cases for site in fingerprints]
    typical = [_median([s[axis] for s in sides], weights) for axis in range(3)]
    lengths = spacing if all(spacing) else (1.0, 1.0, 1.0)
    patch = _patch(typical, lengths)
    strides, kernels = _levels(patch, lengths)
    return PlanConfig(
        spacing=spacing, patch=_whole(patch, strides), strides=strides, kernels=kernels
    )


def _spacing(sites: Sequence[Fingerprint]) -> tuple[float, float, float]:
    """Return the target spacing; zeros, which keep every grid, where no site knows its own."""
    if not sites:
        return (0.0, 0.0, 0.0)
    weights = [site.cases for site in sites]
    inside = _median([site.in_plane[1] for site in sites], weights)
    ranges: list[Range] = [site.between for site in sites if site.between is not None]
    between = _median([r[1] for r in ranges], weights)
    if between > ANISOTROPIC * inside:
        between = max(ANISOTROPIC * inside, min(r[0] for r in ranges))
    return round(between, 4), round(inside, 4), round(inside, 4)


def _at_spacing(site: Fingerprint, spacing: Sequence[float]) -> list[float]:
    """Return a site's median volume in voxels of the plan's spacing."""
    assert site.sides is not None
    medians = [side[1] for side in site.sides]
    if site.spacing_unit != "mm" or not all(spacing) or site.between is None:
        return medians
    have = (site.between[1], site.in_plane[1], site.in_plane[1])
    return [side * h / want for side, h, want in zip(medians, have, spacing, strict=True)]


def _patch(typical: Sequence[float], lengths: Sequence[float]) -> list[int]:
    """Return the typical volume, its physically longest axis cut until the budget holds."""
    patch = [max(1, math.ceil(side)) for side in typical]
    while math.prod(patch) > VOXELS:
        extents = [side * length for side, length in zip(patch, lengths, strict=True)]
        longest = max(range(3), key=lambda axis: extents[axis])
        patch[longest] -= max(1, patch[longest] // 16)
    return patch


def _levels(
    patch: Sequence[int], lengths: Sequence[float]
) -> tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]:
    """Return strides and kernels, the finest level first."""
    sides, lengths = list(patch), list(lengths)
    strides: list[tuple[int, int, int]] = []
    kernels: list[tuple[int, int, int]] = []
    while len(strides) < LEVELS:
        finest = min(lengths)
        near = [length <= ALIKE * finest for length in lengths]
        pooled = [n and side >= 2 * LEAST for n, side in zip(near, sides, strict=True)]
        if not any(pooled[1:]) and len(strides) >= LEAST_LEVELS:
            break
        one, two, three = (2 if p else 1 for p in pooled)
        strides.append((one, two, three))
        one, two, three = (3 if n else 1 for n in near)
        kernels.append((one, two, three))
        for axis, stride in enumerate(strides[-1]):
            sides[axis] = math.ceil(sides[axis] / stride)
            lengths[axis] *= stride
    return tuple(strides), tuple(kernels)


def _whole(patch: Sequence[int], strides: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Return the patch with each side the next multiple of what the network divides it by."""
    first, rows, columns = (
        -(-side // factor) * factor
        for side, factor in zip(
            patch, (math.prod(s[axis] for s in strides) for axis in range(3)), strict=True
        )
    )
    return first, rows, columns


def _median(values: Sequence[float], weights: Sequence[int]) -> float:
    """Return the smallest value that half of the weight does not exceed."""
    pairs = sorted(zip(values, weights, strict=True))
    reached = accumulate(weight for _, weight in pairs)
    half = sum(weights) / 2
    return next(float(v) for (v, _), r in zip(pairs, reached, strict=True) if r >= half)
