"""A mask that does not look at the image, as a model that is scored like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from flames.data.store import SiteStore
from flames.inference.score import ScoredCase, ScoreOptions, TrainedModel, score_store
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


def score_prior(
    mask: np.ndarray, store: SiteStore, *, site: str, precision: Precision, options: ScoreOptions
) -> Iterator[ScoredCase]:
    """Yield each case of the split with the scores of one mask for all images, ``(S, S)`` bool.

    It is that of `flames.data.prior.spatial_prior`, scored as a model of every modality that is
    looked at once: with its mirror image it would be another mask.
    """
    network = precision.place(FixedMask(mask))
    model = TrainedModel("prior", "prior", "all", image_size=len(mask), network=network)
    once = replace(options, flip=False)
    return score_store(model, store, site=site, precision=precision, options=once)
