"""A mask that does not look at the image, as a model that is scored like any other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from flames.inference.score import TrainedModel
from flames.models.precision import Precision

SURE = 20.0
"""Logit of a pixel of the mask, whose sigmoid is 1 in float32's digits; minus it elsewhere."""


class FixedMask(nn.Module):
    """The same logits for every image: a network that is blind."""

    logits: Tensor

    def __init__(self, mask: np.ndarray) -> None:
        """Take the mask, ``(S, S)`` bool."""
        super().__init__()
        self.register_buffer("logits", torch.from_numpy(np.where(mask, SURE, -SURE)).float())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, 1, S, S)`` of ``(B, 1, S, S)``."""
        return self.logits.expand_as(images)


def prior_model(mask: np.ndarray, precision: Precision) -> TrainedModel:
    """Return a mask, such as `flames.data.prior.spatial_prior`, as a model of every modality.

    It is to be looked at once: with the mirror image it would be another mask.
    """
    network = precision.place(FixedMask(mask))
    return TrainedModel(
        name="prior", kind="prior", modality="all", image_size=len(mask), network=network
    )
