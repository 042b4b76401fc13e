"""Tumour probabilities of volumes by a network in three dimensions, patch by patch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from flames.config import PlanConfig
from flames.data.blocks import Blocks, planned_shape, resample
from flames.inference.looks import look
from flames.inference.validation import Validation, validation_of
from flames.metrics.presence import presence_score
from flames.models.precision import Precision

OVERLAP = 0.5
"""Of neighbouring patches; where several see a voxel, Gaussian weights average them."""
QUICK_OVERLAP = 0.25
"""The same while validation chooses between weights."""


@torch.inference_mode()
def predict_block(
    model: nn.Module,
    block: np.ndarray,
    plan: PlanConfig,
    *,
    precision: Precision,
    mirror: int | None = None,
    overlap: float = OVERLAP,
) -> np.ndarray:
    """Return probabilities ``(D, H, W)`` float32 of a normalised volume at the plan's spacing.

    Args:
        model: The network; it is left in evaluation mode.
        block: ``(D, H, W)`` in [-1, 1], any float dtype.
        plan: Its patch is the window, its batch size the windows a pass.
        precision: Device and dtype.
        mirror: Look at the volume mirrored along this axis instead, see `look`.
        overlap: Share of a window that its neighbour sees too.
    """
    model.eval()
    volume = torch.from_numpy(np.asarray(block, np.float32))[None, None]

    def probabilities(patches: Tensor) -> Tensor:
        with precision.autocast():
            return look(model, precision.move(patches), mirror)

    found = sliding_window_inference(
        volume,
        roi_size=plan.patch,
        sw_batch_size=plan.batch_size,
        predictor=probabilities,
        overlap=overlap,
        mode="gaussian",
        padding_mode="constant",
        cval=-1.0,
        sw_device=precision.device,
        device=torch.device("cpu"),
    )
    assert isinstance(found, Tensor)
    return found[0, 0].numpy()


def predict_volume(
    model: nn.Module,
    slices: np.ndarray,
    spacing: Sequence[float] | None,
    plan: PlanConfig,
    *,
    precision: Precision,
    mirror: int | None = None,
) -> np.ndarray:
    """Return probabilities ``(D, H, W)`` float32 of a normalised volume, slices first.

    Args:
        model: A network of the plan.
        slices: ``(D, H, W)`` in [-1, 1].
        spacing: Millimetres, slices first; None where it is unknown.
        plan: The modality's plan.
        precision: Device and dtype.
        mirror: Look at the volume mirrored along this axis instead.
    """
    shape = planned_shape(slices.shape, spacing, plan.spacing)
    block = np.clip(resample(slices, shape), -1, 1).astype(np.float16)
    probs = predict_block(model, block, plan, precision=precision, mirror=mirror)
    depth, height, width = slices.shape
    return np.clip(resample(probs, (depth, height, width)), 0, 1)


def validate_blocks(
    model: nn.Module, tables: Sequence[Blocks], plan: PlanConfig, *, precision: Precision
) -> Validation:
    """Return mean Dice and presence curve over validation volumes, at the plan's spacing."""
    scores: list[float] = []
    tumour: list[bool] = []
    presence: list[float] = []
    for table in tables:
        for image, label in zip(table.images, table.labels, strict=True):
            probs = predict_block(model, image, plan, precision=precision, overlap=QUICK_OVERLAP)
            found, truth = probs > 0.5, np.asarray(label) >= 128
            both = int(found.sum()) + int(truth.sum())
            scores.append(2 * int((found & truth).sum()) / both if both else math.nan)
            tumour.append(bool(truth.any()))
            presence.append(presence_score(probs, slice_axis=0))
    return validation_of(scores, tumour, presence)
