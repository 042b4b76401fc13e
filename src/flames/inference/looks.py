"""How often a network looks at an image: once, or at its mirror image too."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def look(network: nn.Module, images: Tensor, mirror: int | None) -> Tensor:
    """Return tumour probabilities float32 of ``(B, 1, …)``, in the same shape.

    Args:
        network: Gives logits.
        images: In [-1, 1].
        mirror: Average with the mirror image along this axis, see
            `flames.data.augment.mirror_axis`; None does not.
    """
    probs = torch.sigmoid(network(images).float())
    if mirror is not None:
        probs = (probs + torch.sigmoid(network(images.flip(mirror)).float()).flip(mirror)) / 2
    return probs
