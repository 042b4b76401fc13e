"""Tumour probabilities of slices and of whole cases, in the image's own geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from flames.config import PlanConfig
from flames.data.augment import mirror_axis
from flames.data.blocks import case_spacing
from flames.data.slices import Slices, case_slices, fit, unfit
from flames.data.store import CaseRecord, SiteStore
from flames.inference.corners import predict_corners
from flames.inference.looks import look
from flames.inference.predict_volumes import predict_volume
from flames.inference.validation import Validation, validation_of
from flames.metrics.presence import presence_score
from flames.models.precision import Precision


@torch.inference_mode()
def predict_squares(
    model: nn.Module,
    squares: np.ndarray,
    *,
    precision: Precision,
    batch_size: int,
    mirror: int | None = None,
) -> Tensor:
    """Return probabilities ``(N, S, S)`` float32 of normalised squares ``(N, S, S)``.

    Args:
        model: The network; it is left in evaluation mode.
        squares: Normalised images, any float dtype.
        precision: Device and dtype.
        batch_size: Images a pass.
        mirror: Look at the mirror images along this axis instead, see `look`.
    """
    model.eval()
    parts = []
    for start in range(0, len(squares), batch_size):
        part = np.asarray(squares[start : start + batch_size], np.float32)
        images = precision.move(torch.from_numpy(part)[:, None])
        with precision.autocast():
            probs = look(model, images, mirror)
        parts.append(probs[:, 0].cpu())
    return torch.cat(parts)


def predict_case(
    model: nn.Module,
    store: SiteStore,
    case: CaseRecord,
    *,
    image_size: int,
    precision: Precision,
    batch_size: int,
    flip: bool = False,
    plan: PlanConfig | None = None,
    corners: float | None = None,
) -> tuple[np.ndarray, float]:
    """Return a case's tumour probabilities in its own shape, float32, and its presence score.

    With a plan ``model`` works in three dimensions and the case is a volume. With ``flip`` it is
    looked at twice, see `predict_slices`; with ``corners`` in four crops of that share of each
    side, see `predict_corners`.
    """
    slices, _ = case_slices(store, case)
    predict = partial(
        predict_slices,
        model,
        image_size=image_size,
        precision=precision,
        batch_size=batch_size,
        mirror=mirror_axis(store.modality) if flip else None,
        plan=plan,
        spacing=case_spacing(case),
    )
    native, presence = predict_corners(predict, slices, corners) if corners else predict(slices)
    if case.slice_axis is None:
        return native[0], presence
    return np.moveaxis(native, 0, case.slice_axis), presence


def predict_slices(
    model: nn.Module,
    slices: np.ndarray,
    *,
    image_size: int,
    precision: Precision,
    batch_size: int,
    mirror: int | None = None,
    plan: PlanConfig | None = None,
    spacing: Sequence[float] | None = None,
) -> tuple[np.ndarray, float]:
    """Return probabilities ``(N, H, W)`` float32 of normalised slices of any size, and presence.

    With ``mirror`` probabilities are the mean of two looks, the second at the mirror image along
    that axis. The presence score is the first look's: validation looks once, and chose the
    threshold that the score is held against.

    With a plan the slices are one volume; its ``spacing``, slices first, is in mm, None if unknown.
    """

    def seen(mirror: int | None) -> np.ndarray:
        if plan is not None:
            return predict_volume(model, slices, spacing, plan, precision=precision, mirror=mirror)
        probs = predict_squares(
            model, squares, precision=precision, batch_size=batch_size, mirror=mirror
        )
        return unfit(probs, slices.shape[1:]).numpy()

    if plan is None:
        squares = np.clip(fit(slices, image_size, fill=-1.0), -1, 1).astype(np.float16)
    probs = seen(None)
    presence = presence_score(probs, slice_axis=0)
    return probs if mirror is None else (probs + seen(mirror)) / 2, presence


def validation_rows(slices: Slices, at_most: int) -> np.ndarray:
    """Return row numbers that stand for a split: evenly spread over it, at most about so many.

    A case of which some are chosen, but none that shows its tumour, gets one that does.
    """
    stride = max(1, -(-len(slices) // at_most))
    chosen = np.arange(stride // 2 if len(slices) > stride // 2 else 0, len(slices), stride)
    if stride == 1:
        return chosen
    added = []
    for rows in slices.rows_by_case.values():
        here, shown = np.intersect1d(rows, chosen), rows[slices.with_tumour[rows]]
        if len(here) and len(shown) and not slices.with_tumour[here].any():
            added.append(shown[len(shown) // 2])
    return np.union1d(chosen, np.array(added, dtype=chosen.dtype))


def validate(
    model: nn.Module,
    tables: Sequence[Slices],
    *,
    at_most: int,
    precision: Precision,
    batch_size: int,
) -> Validation:
    """Return mean Dice and presence curve over validation cases, on their fitted slices.

    Empty label and prediction is undefined and left out; a false alarm or a miss is 0. Where no
    case is defined the score is 1 if all are rightly empty: nothing was there, nothing was found.
    """
    scores: list[float] = []
    tumour: list[bool] = []
    presence: list[float] = []
    for table in tables:
        rows = validation_rows(table, at_most)
        probs = predict_squares(
            model, table.images[rows], precision=precision, batch_size=batch_size
        )
        found = (probs > 0.5).numpy()
        truth = table.labels[rows] >= 128
        names = np.array([table.case_ids[row] for row in rows])
        for case_id in dict.fromkeys(names):
            mine = names == case_id
            both = int(found[mine].sum()) + int(truth[mine].sum())
            overlap = 2 * int((found[mine] & truth[mine]).sum())
            scores.append(overlap / both if both else math.nan)
            tumour.append(bool(truth[mine].any()))
            inside = _unpadded(np.asarray(table.images[rows[mine]]))
            presence.append(presence_score(probs[mine].numpy()[inside], slice_axis=0))
    return validation_of(scores, tumour, presence)


def _unpadded(squares: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the box of squares ``(N, S, S)`` without the rows and columns that only pad them."""
    shown = squares.max(axis=0) > -1
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not rows.size:
        return slice(None), slice(None), slice(None)
    return slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
