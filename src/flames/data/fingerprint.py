"""What a site's training images are like, in counts and percentiles only: nothing of one case.

Its hospital shares it with the model, so that whoever uses the model elsewhere can be told how far
an image is from those that it learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from flames.data.normalise import CT_WINDOW, intensity_window, normalise
from flames.data.store import Modality, SiteStore
from flames.errors import FlamesError

PERCENTILES = (5.0, 50.0, 95.0)
AT_MOST = 200
"""Cases that are read for brightness, spread over the training side."""
Range = tuple[float, float, float]


class Fingerprint(BaseModel):
    """One site's training images; ranges are the 5th, 50th and 95th percentile over cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Modality
    organ: str
    cases: int
    made_up: bool
    dimensions: int
    """2 for single images, 3 for volumes."""
    spacing_unit: Literal["mm", "px"]
    in_plane: Range
    """Mean spacing inside a slice."""
    between: Range | None
    """Distance of slices; None for single images."""
    brightness: Range
    """Mean of the normalised image, -1 to 1."""
    contrast: Range
    """Standard deviation of the normalised image."""
    ct_window: tuple[float, float] | None
    """Hounsfield units mapped to -1 and 1."""
    sides: tuple[Range, Range, Range] | None = None
    """Voxels of a volume: slices, rows, columns; None for single images."""


def fingerprint(store: SiteStore) -> Fingerprint:
    """Return the fingerprint of a store's training cases.

    Raises:
        FlamesError: It has none.
    """
    cases = store.split("train")
    if not cases:
        raise FlamesError(
            f"{store.path} has no training case to tell of: all {len(store.cases)} are test cases",
            "prepare a store of three patients or more",
        )
    step = max(1, -(-len(cases) // AT_MOST))
    light = [measure(store.image(c.case_id), c.intensity) for c in cases[::step]]
    apart = [spacing_parts(c.spacing, c.slice_axis) for c in cases]
    volumes = [b for _, b in apart if b is not None]
    axes = [slice_first(c.shape, c.slice_axis) for c in cases if c.slice_axis is not None]
    first, rows, columns = ([shape[axis] for shape in axes] for axis in range(3))
    window = store.info.settings.get("ct_window", CT_WINDOW)
    return Fingerprint(
        modality=store.modality,
        organ=store.organ,
        cases=len(cases),
        made_up=store.info.made_up,
        dimensions=3 if volumes else 2,
        spacing_unit="px" if any(c.spacing_unit == "px" for c in cases) else "mm",
        in_plane=_range([a for a, _ in apart]),
        between=_range(volumes) if volumes else None,
        brightness=_range([mean for mean, _ in light]),
        contrast=_range([deviation for _, deviation in light]),
        ct_window=(float(window[0]), float(window[1])) if store.modality == "CT" else None,
        sides=(_range(first), _range(rows), _range(columns)) if axes else None,
    )


def slice_first(shape: Sequence[int], slice_axis: int) -> list[int]:
    """Return a volume's shape with the number of its slices first.

    >>> slice_first((256, 240, 20), 2)
    [20, 256, 240]
    """
    return [shape[slice_axis], *(side for axis, side in enumerate(shape) if axis != slice_axis)]


def measure(image: np.ndarray, window: tuple[float, float]) -> tuple[float, float]:
    """Return mean and standard deviation of an image, normalised by ``window``."""
    values = normalise(image, window)
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def spacing_parts(spacing: Sequence[float], slice_axis: int | None) -> tuple[float, float | None]:
    """Return the mean spacing inside a slice, and between slices where there are several.

    >>> spacing_parts((0.5, 0.7, 3.0), 2)  # (0.5 + 0.7) / 2
    (0.6, 3.0)
    """
    inside = [s for axis, s in enumerate(spacing) if axis != slice_axis]
    between = None if slice_axis is None else float(spacing[slice_axis])
    return float(np.mean(inside)), between


def departures(
    image: np.ndarray,
    *,
    spacing: Sequence[float],
    spacing_known: bool,
    slice_axis: int | None,
    sites: Sequence[Fingerprint],
) -> list[str]:
    """Return how an image differs from every site that a model learned from, as sentences.

    A spacing is far when it is more than 1.5 times outside a site's range, brightness and contrast
    when they are more than 0.25 outside. The nearest site counts, each measure for itself.
    """
    alike = [s for s in sites if s.dimensions == (2 if slice_axis is None else 3)]
    if sites and not alike:
        kind = "a volume" if slice_axis is not None else "a single image"
        other = "volumes" if sites[0].dimensions == 3 else "single images"
        return [f"it is {kind}, the model learned from {other}"]
    found = []
    if spacing_known:
        inside, between = spacing_parts(spacing, slice_axis)
        scaled = [s for s in alike if s.spacing_unit == "mm"]
        found += _far_spacing("pixels of", inside, [s.in_plane for s in scaled])
        if between is not None:
            ranges = [s.between for s in scaled if s.between is not None]
            found += _far_spacing("slices", between, ranges)
    if alike:
        window = intensity_window(image, alike[0].modality, alike[0].ct_window or CT_WINDOW)
        mean, deviation = measure(image, window)
        found += _far_light("brightness", mean, [s.brightness for s in alike])
        found += _far_light("contrast", deviation, [s.contrast for s in alike])
    return found


def _far_spacing(what: str, value: float, ranges: Sequence[Range]) -> list[str]:
    if not ranges or any(low / 1.5 <= value <= high * 1.5 for low, _, high in ranges):
        return []
    unit = f"{value:.3g} mm" if what == "pixels of" else f"{value:.3g} mm apart"
    return [f"it has {what} {unit}, in training {_spans(ranges, '.3g')}"]


def _far_light(what: str, value: float, ranges: Sequence[Range]) -> list[str]:
    if any(low - 0.25 <= value <= high + 0.25 for low, _, high in ranges):
        return []
    return [f"its {what} after normalisation is {value:.2f}, in training {_spans(ranges, '.2f')}"]


def _spans(ranges: Sequence[Range], form: str) -> str:
    """Return the sites' ranges, joined where they overlap: a value between two is in neither.

    >>> _spans([(6.0, 6.0, 7.0), (1.0, 1.0, 1.0), (6.5, 7.0, 8.0)], ".3g")
    '1 or 6 to 8'
    """
    joined: list[tuple[float, float]] = []
    for low, _, high in sorted(ranges):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    words = [(format(low, form), format(high, form)) for low, high in joined]
    return " or ".join(dict.fromkeys(a if a == b else f"{a} to {b}" for a, b in words))


def _range(values: Sequence[float]) -> Range:
    low, middle, high = (round(float(v), 4) for v in np.percentile(values, PERCENTILES))
    return low, middle, high
