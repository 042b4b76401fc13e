"""Tumour probabilities of slices and of whole cases, in the image's own geometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from flames.data.slices import Slices, case_slices, fit, unfit
from flames.data.store import CaseRecord, SiteStore
from flames.models.precision import Precision


@torch.inference_mode()
def predict_squares(
    model: nn.Module,
    squares: np.ndarray,
    *,
    precision: Precision,
    batch_size: int,
    flip: bool = False,
) -> Tensor:
    """Return probabilities ``(N, S, S)`` float32 of normalised squares ``(N, S, S)``.

    Args:
        model: The network; it is left in evaluation mode.
        squares: Normalised images, any float dtype.
        precision: Device and dtype.
        batch_size: Images a pass.
        flip: Average with the mirror image along the last axis.
    """
    model.eval()
    parts = []
    for start in range(0, len(squares), batch_size):
        part = np.asarray(squares[start : start + batch_size], np.float32)
        images = precision.move(torch.from_numpy(part)[:, None])
        with precision.autocast():
            logits = model(images)
            mirrored = model(images.flip(-1)).flip(-1) if flip else None
        probs = torch.sigmoid(logits.float())
        if mirrored is not None:
            probs = (probs + torch.sigmoid(mirrored.float())) / 2
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
) -> np.ndarray:
    """Return a case's tumour probabilities in its own shape, float32."""
    slices, _ = case_slices(store, case)
    native = predict_slices(
        model,
        slices,
        image_size=image_size,
        precision=precision,
        batch_size=batch_size,
        flip=flip,
    )
    return native[0] if case.slice_axis is None else np.moveaxis(native, 0, case.slice_axis)


def predict_slices(
    model: nn.Module,
    slices: np.ndarray,
    *,
    image_size: int,
    precision: Precision,
    batch_size: int,
    flip: bool = False,
) -> np.ndarray:
    """Return probabilities ``(N, H, W)`` float32 of normalised slices ``(N, H, W)`` of any size."""
    squares = np.clip(fit(slices, image_size, fill=-1.0), -1, 1).astype(np.float16)
    probs = predict_squares(model, squares, precision=precision, batch_size=batch_size, flip=flip)
    return unfit(probs, slices.shape[1:]).numpy()


def validation_rows(slices: Slices, at_most: int) -> np.ndarray:
    """Return row numbers that stand for a split: evenly spread over it, at most about so many."""
    stride = max(1, -(-len(slices) // at_most))
    return np.arange(stride // 2 if len(slices) > stride // 2 else 0, len(slices), stride)


def validation_dice(
    model: nn.Module,
    tables: Sequence[Slices],
    *,
    at_most: int,
    precision: Precision,
    batch_size: int,
) -> float:
    """Return the mean Dice over validation cases, on their fitted slices.

    Empty label and prediction is undefined and left out; a false alarm or a miss is 0. Where no
    case is defined the score is 1 if all are rightly empty: nothing was there, nothing was found.
    """
    scores: list[float] = []
    cases = 0
    for table in tables:
        rows = validation_rows(table, at_most)
        probs = predict_squares(
            model, table.images[rows], precision=precision, batch_size=batch_size
        )
        found = (probs > 0.5).numpy()
        truth = table.labels[rows] >= 128
        names = np.array([table.case_ids[row] for row in rows])
        for case_id in dict.fromkeys(names):
            cases += 1
            mine = names == case_id
            both = int(found[mine].sum()) + int(truth[mine].sum())
            if both:
                scores.append(2 * int((found[mine] & truth[mine]).sum()) / both)
    return float(np.mean(scores)) if scores else float(cases > 0)
