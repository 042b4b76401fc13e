"""Scores of one case: overlap, surface distances, volume, and whether there is tumour at all.

A case is one ultrasound image ``(H, W)`` or one whole volume ``(X, Y, Z)``, in the geometry of its
source. None means undefined, never zero: tables leave it out of the mean and count it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance

SpacingUnit: TypeAlias = Literal["mm", "px"]
VolumeUnit: TypeAlias = Literal["ml", "mm2", "px", "voxels"]


@dataclass(frozen=True)
class CaseScore:
    """All scores of one case under one model; the fields are columns of ``cases.csv``."""

    label_voxels: int
    """Pixels or voxels of tumour in the label."""
    prediction_voxels: int
    """Pixels or voxels of tumour in the prediction."""
    dice: float | None
    """0 to 1; None when both masks are empty."""
    iou: float | None
    """0 to 1; None when both masks are empty."""
    hd95: float | None
    """In ``distance_unit``; None when either mask is empty."""
    nsd: float | None
    """0 to 1 at ``nsd_tolerance``; None when both masks are empty."""
    distance_unit: SpacingUnit
    """Millimetres where spacing is known, pixels where it is not."""
    nsd_tolerance: float
    """In ``distance_unit``."""
    volume_error: float
    """Prediction minus label, in ``volume_unit``: negative where tumour was left out."""
    volume_unit: VolumeUnit
    """``ml`` for volumes with spacing, ``mm2`` for images with spacing, else a count."""
    presence_score: float
    """How sure the model is that there is tumour, 0 to 1."""
    tumour_present: bool
    """The label has tumour."""
    tumour_predicted: bool
    """The prediction has tumour."""

    def as_row(self) -> dict[str, float | int | str | None]:
        """Return the columns of ``cases.csv``; truth values become 0 and 1."""
        return {k: int(v) if isinstance(v, bool) else v for k, v in asdict(self).items()}


def score_case(
    prediction: np.ndarray,
    label: np.ndarray,
    *,
    spacing: Sequence[float],
    spacing_unit: SpacingUnit,
    presence_score: float,
    nsd_tolerance: float = 2.0,
) -> CaseScore:
    """Return every score of one case.

    Empty masks: when both are empty, overlap and distances are None. An empty label with a
    prediction gives Dice, IoU and NSD 0 and HD95 None; so does a tumour missed entirely. The volume
    error is always defined.

    Args:
        prediction: ``(H, W)`` or ``(X, Y, Z)``, bool or integer; not 0 is tumour.
        label: The same shape.
        spacing: Distance between neighbours in array-axis order, in ``spacing_unit``.
        spacing_unit: ``px`` where the source records no spacing.
        presence_score: The case's score from `flames.metrics.presence.presence_score`.
        nsd_tolerance: In ``spacing_unit``.

    Raises:
        ValueError: Shapes differ, a mask is neither bool nor integer, or spacing does not fit.

    >>> label = np.zeros((4, 5), bool)
    >>> label[1:3, 1:4] = True
    >>> prediction = np.zeros((4, 5), bool)
    >>> prediction[1:3, 1:3] = True
    >>> score = score_case(
    ...     prediction, label, spacing=(0.5, 0.25), spacing_unit="mm", presence_score=0.9
    ... )
    >>> score.dice, score.volume_error, score.volume_unit  # 2·4/(4+6); (4−6)·0.5·0.25
    (0.8, -0.25, 'mm2')
    """
    prediction, label = _masks(prediction, label)
    spacing = _checked_spacing(spacing, label.ndim)
    to_label, to_prediction = _surface_distances(prediction, label, spacing)
    predicted, present = int(prediction.sum()), int(label.sum())
    size, volume_unit = _volume_of_one(spacing, spacing_unit)
    return CaseScore(
        label_voxels=present,
        prediction_voxels=predicted,
        dice=dice(prediction, label),
        iou=iou(prediction, label),
        hd95=_hd95(to_label, to_prediction),
        nsd=_nsd(to_label, to_prediction, nsd_tolerance),
        distance_unit=spacing_unit,
        nsd_tolerance=float(nsd_tolerance),
        volume_error=(predicted - present) * size,
        volume_unit=volume_unit,
        presence_score=float(presence_score),
        tumour_present=present > 0,
        tumour_predicted=predicted > 0,
    )


def dice(prediction: np.ndarray, label: np.ndarray) -> float | None:
    """Return the Dice coefficient ``2|P∩L| / (|P|+|L|)``, 0 to 1.

    Equal masks give 1, disjoint ones 0, one empty mask 0, two empty masks None.

    L. R. Dice, Ecology 26(3), 1945, "coincidence index".

    >>> dice(np.array([[1, 1, 1, 0]]), np.array([[0, 1, 1, 1]]) > 0)  # 2·2/(3+3)
    0.6666666666666666
    """
    prediction, label = _masks(prediction, label)
    total = int(prediction.sum()) + int(label.sum())
    return 2 * int((prediction & label).sum()) / total if total else None


def iou(prediction: np.ndarray, label: np.ndarray) -> float | None:
    """Return the intersection over union ``|P∩L| / |P∪L|``, 0 to 1, which is ``D/(2−D)`` of Dice D.

    Equal masks give 1, disjoint ones 0, one empty mask 0, two empty masks None.

    P. Jaccard, New Phytologist 11(2), 1912.

    >>> iou(np.array([[1, 1, 1, 0]]), np.array([[0, 1, 1, 1]]))  # 2/4
    0.5
    """
    prediction, label = _masks(prediction, label)
    union = int((prediction | label).sum())
    return int((prediction & label).sum()) / union if union else None


def hd95(prediction: np.ndarray, label: np.ndarray, *, spacing: Sequence[float]) -> float | None:
    """Return the 95th percentile Hausdorff distance of the surfaces, in the unit of ``spacing``.

    ``max(q95 d(∂P, ∂L), q95 d(∂L, ∂P))``: from every surface voxel of one mask to the nearest of
    the other, the 95th percentile with linear interpolation, the larger of both directions. A
    surface voxel is tumour with a face neighbour that is not; outside the array nothing is tumour.

    Equal masks give 0. Either mask empty gives None.

    D. P. Huttenlocher et al., IEEE TPAMI 15(9), 1993: the partial Hausdorff distance.

    >>> prediction, label = np.zeros((2, 1, 9), bool)
    >>> prediction[0, 2] = label[0, 6] = True
    >>> hd95(prediction, label, spacing=(3.0, 0.5))  # four columns of 0.5
    2.0
    """
    prediction, label = _masks(prediction, label)
    spacing = _checked_spacing(spacing, label.ndim)
    return _hd95(*_surface_distances(prediction, label, spacing))


def nsd(
    prediction: np.ndarray, label: np.ndarray, *, spacing: Sequence[float], tolerance: float
) -> float | None:
    """Return the normalised surface Dice, 0 to 1: the share of both surfaces that agree.

    ``(|{p∈∂P: d(p,∂L) ≤ t}| + |{l∈∂L: d(l,∂P) ≤ t}|) / (|∂P|+|∂L|)``, voxels of the surface each
    counting one, ``t`` the tolerance in the unit of ``spacing``.

    Equal masks give 1 at every tolerance; one empty mask gives 0, two empty masks None.

    S. Nikolov et al., J Med Internet Res 23(7):e26151, 2021, "surface DSC".

    >>> prediction, label = np.zeros((2, 1, 9), bool)
    >>> prediction[0, 2] = label[0, 2] = label[0, 6] = True
    >>> nsd(prediction, label, spacing=(1.0, 0.5), tolerance=1.0)  # (1 + 1) / (1 + 2)
    0.6666666666666666
    """
    prediction, label = _masks(prediction, label)
    spacing = _checked_spacing(spacing, label.ndim)
    return _nsd(*_surface_distances(prediction, label, spacing), tolerance)


def _hd95(to_label: np.ndarray, to_prediction: np.ndarray) -> float | None:
    if not to_label.size or not to_prediction.size:
        return None
    return max(float(np.percentile(d, 95)) for d in (to_label, to_prediction))


def _nsd(to_label: np.ndarray, to_prediction: np.ndarray, tolerance: float) -> float | None:
    total = to_label.size + to_prediction.size
    if not total:
        return None
    return int((to_label <= tolerance).sum() + (to_prediction <= tolerance).sum()) / total


def _surface_distances(
    prediction: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances from each surface to the other; infinite to an empty mask, none from one."""
    prediction, label = _crop(prediction, label)
    surfaces = get_mask_edges(prediction, label, crop=False)
    if not prediction.any() or not label.any():
        # MONAI's answer for an empty mask changed between versions; ours is fixed.
        sizes = [int(np.asarray(s).sum()) for s in surfaces]
        return np.full(sizes[0], np.inf), np.full(sizes[1], np.inf)
    there = get_surface_distance(surfaces[0], surfaces[1], spacing=spacing)
    back = get_surface_distance(surfaces[1], surfaces[0], spacing=spacing)
    return np.asarray(there, float), np.asarray(back, float)


def _crop(prediction: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both masks in the box around them; outside of it nothing is tumour."""
    either = prediction | label
    axes = range(either.ndim)
    hits = [np.flatnonzero(either.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    box = tuple(slice(h[0], h[-1] + 1) if h.size else slice(0, 0) for h in hits)
    return prediction[box], label[box]


def _volume_of_one(spacing: tuple[float, ...], unit: SpacingUnit) -> tuple[float, VolumeUnit]:
    flat = len(spacing) == 2
    if unit == "px":
        return 1.0, "px" if flat else "voxels"
    size = float(np.prod(spacing))
    return (size, "mm2") if flat else (size / 1000, "ml")


def _masks(prediction: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prediction, label = np.asarray(prediction), np.asarray(label)
    if prediction.shape != label.shape or label.ndim not in (2, 3):
        raise ValueError(
            f"prediction {prediction.shape} and label {label.shape} must be of one shape, "
            "(H, W) or (X, Y, Z)"
        )
    for name, mask in (("prediction", prediction), ("label", label)):
        if mask.dtype.kind not in "biu":
            raise ValueError(f"{name} is {mask.dtype}: threshold it to bool first")
    return prediction.astype(bool, copy=False), label.astype(bool, copy=False)


def _checked_spacing(spacing: Sequence[float], dimensions: int) -> tuple[float, ...]:
    values = tuple(float(s) for s in spacing)
    if len(values) != dimensions or not all(0 < s < float("inf") for s in values):
        raise ValueError(f"spacing {values} must be {dimensions} positive numbers, one an axis")
    return values
