"""One look of a network at images, as they are or at their mirror images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def look(network: nn.Module, images: Tensor, mirror: int | None) -> Tensor:
    """Return tumour probabilities float32 of ``(B, 1, …)``, in the same shape and place.

    Args:
        network: Gives logits.
        images: In [-1, 1].
        mirror: Look at the mirror images along this axis, see `flames.data.augment.mirror_axis`;
            None looks at the images.
    """
    if mirror is None:
        return torch.sigmoid(network(images).float())
    return torch.sigmoid(network(images.flip(mirror)).float()).flip(mirror)
