"""What another machine would have made of the same patient: shifts of an image before it is read.

A shift works on the source's intensities, in the slices' own grid. The intensity window is then
found again, as preparation would: what normalisation undoes costs nothing, and that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage

from flames.data.augment import mirror_axis
from flames.data.blocks import case_spacing
from flames.data.normalise import CT_WINDOW, intensity_window, normalise
from flames.data.store import CaseRecord, SiteStore
from flames.inference.corners import CORNER_SHARE, predict_corners
from flames.inference.predict import predict_slices
from flames.inference.score import ScoreOptions, TrainedModel
from flames.metrics.cases import dice
from flames.models.precision import Precision
from flames.models.student import tell

NONE, CORNERS = "none", "corners"
STRENGTHS = ("mild", "strong")


@dataclass(frozen=True)
class Scan:
    """Slices of one case before normalisation."""

    slices: np.ndarray
    """``(N, H, W)`` float32, in the source's intensities."""
    floor: float
    """Intensity of nothing: air in a CT, else the lowest value."""
    span: float
    """Width of the case's intensity window."""


Shift = Callable[[Scan, float, np.random.Generator], np.ndarray]


def _gain(scan: Scan, by: float, _: np.random.Generator) -> np.ndarray:
    return scan.floor + (scan.slices - scan.floor) * by


def _contrast(scan: Scan, by: float, _: np.random.Generator) -> np.ndarray:
    """Bend the grey scale by a power: a straight one would be undone by normalisation."""
    top = max(float(scan.slices.max()) - scan.floor, 1e-6)
    return scan.floor + top * ((scan.slices - scan.floor) / top).clip(0, 1) ** by


def _noise(scan: Scan, by: float, rng: np.random.Generator) -> np.ndarray:
    return scan.slices + rng.normal(0, by * scan.span, scan.slices.shape)


def _blur(scan: Scan, by: float, _: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(scan.slices, (0, by, by), mode="nearest")


def _resolution(scan: Scan, by: float, _: np.random.Generator) -> np.ndarray:
    """Average over blocks of ``by`` pixels a side, and come back to the grid."""
    height, width = scan.slices.shape[1:]
    coarse = (1, max(1, round(height / by)) / height, max(1, round(width / by)) / width)
    smooth = ndimage.gaussian_filter(scan.slices, (0, by / 3, by / 3), mode="nearest")
    small = ndimage.zoom(smooth, coarse, order=1, mode="nearest", grid_mode=True)
    back = [n / m for n, m in zip(scan.slices.shape, small.shape, strict=True)]
    return ndimage.zoom(small, back, order=1, mode="nearest", grid_mode=True)


def _bias_field(scan: Scan, by: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply by a smooth field between about 1/(1 + by) and 1 + by across each slice."""
    height, width = scan.slices.shape[1:]
    coarse = rng.uniform(-1, 1, (3, 3))
    field = ndimage.zoom(coarse, (height / 3, width / 3), order=3, mode="nearest", grid_mode=True)
    field = field[:height, :width].clip(-1, 1) * np.log1p(by)
    return scan.floor + (scan.slices - scan.floor) * np.exp(field)


def _unchanged(scan: Scan, by: float, _: np.random.Generator) -> np.ndarray:
    del by
    return scan.slices


SHIFTS: dict[str, tuple[Shift, tuple[float, float]]] = {
    "gain": (_gain, (1.2, 1.5)),
    "contrast": (_contrast, (1.3, 1.8)),
    "noise": (_noise, (0.05, 0.15)),
    "blur": (_blur, (1.0, 2.0)),
    "resolution": (_resolution, (2.0, 4.0)),
    "bias field": (_bias_field, (0.3, 0.8)),
    "crop": (_unchanged, (0.85, 0.7)),
    CORNERS: (_unchanged, (0.85, CORNER_SHARE)),
}
"""Shifts by name, each with its mild and its strong amount: factor, power, share of the window,
pixels, pixels a block, share, and share of each side that is left, in the middle or at a corner."""
CONDITIONS = ((NONE, ""), *((shift, strength) for shift in SHIFTS for strength in STRENGTHS))
"""Shift and strength of every row of a case, in their order."""


def shifted_slices(
    store: SiteStore, case: CaseRecord, shift: str, strength: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return normalised image and label slices ``(N, H, W)`` of a case under a shift.

    ``none`` and ``corners`` change nothing: in the latter it is how slices are seen, see
    `predict_corners`. A crop takes the border away from image and label alike: what another
    machine does not see, it need not find. Equal arguments give equal bits.
    """
    image, label = np.asarray(store.image(case.case_id)), np.asarray(store.label(case.case_id))
    axis = case.slice_axis
    slices = image[None] if axis is None else np.moveaxis(image, axis, 0)
    labels = label[None] if axis is None else np.moveaxis(label, axis, 0)
    if shift in (NONE, CORNERS):
        return normalise(slices, case.intensity), labels
    change, amounts = SHIFTS[shift]
    amount = amounts[STRENGTHS.index(strength)]
    low, high = case.intensity
    floor = -1000.0 if store.modality == "CT" and low < 0 else float(slices.min())
    rng = np.random.default_rng([int(case.arrays_sha256[:8] or "0", 16), len(shift)])
    changed = change(Scan(slices.astype(np.float32), floor, high - low), amount, rng)
    if slices.dtype.kind in "iu":
        limits = np.iinfo(slices.dtype)
        changed = np.round(changed).clip(limits.min, limits.max)
    if shift == "crop":
        box = tuple(_middle(side, amount) for side in slices.shape[1:])
        changed, labels = changed[:, *box], labels[:, *box]
    window = intensity_window(changed, store.modality, _ct_window(store))
    return normalise(changed, window), labels


def score_shifts(
    model: TrainedModel,
    store: SiteStore,
    *,
    site: str,
    precision: Precision,
    options: ScoreOptions,
) -> Iterator[dict[str, Any]]:
    """Yield a row a case and shift: Dice and presence of ``model`` under it."""
    tell(model.network, store.modality)
    for case in store.split(options.split):
        for shift, strength in CONDITIONS:
            slices, labels = shifted_slices(store, case, shift, strength)
            predict = partial(
                predict_slices,
                model.network,
                image_size=model.image_size,
                precision=precision,
                batch_size=options.batch_size,
                mirror=mirror_axis(store.modality) if options.flip else None,
                plan=model.plan,
                spacing=case_spacing(case),
            )
            if shift == CORNERS:
                share = SHIFTS[shift][1][STRENGTHS.index(strength)]
                probs, presence = predict_corners(predict, slices, share)
            else:
                probs, presence = predict(slices)
            found = model.decide(probs, presence)
            yield {
                "model": model.name,
                "model_kind": model.kind,
                "site": site,
                "modality": store.modality,
                "organ": store.organ,
                "case_id": case.case_id,
                "group": case.group,
                "shift": shift,
                "strength": strength,
                "dice": dice(found, labels),
                "presence_score": presence,
                "tumour_present": int(labels.any()),
                "tumour_predicted": int(found.any()),
            }


def _middle(side: int, share: float) -> slice:
    kept = max(1, round(side * share))
    start = (side - kept) // 2
    return slice(start, start + kept)


def _ct_window(store: SiteStore) -> tuple[float, float]:
    low, high = store.info.settings.get("ct_window") or CT_WINDOW
    return float(low), float(high)
