"""Any image size through a network that halves its input several times."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AnySize(nn.Module):
    """Pads an image up to a multiple of ``stride``, and crops and rescales the logits back.

    A side is at least twice the stride: norms cannot work on a single deepest pixel.
    """

    def __init__(self, network: nn.Module, *, stride: int) -> None:
        """Wrap ``network``, whose input sides must be multiples of ``stride``."""
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return logits ``(B, 1, H, W)`` for an image ``(B, 1, H, W)`` of any size.

        In training with deep supervision a list comes back, the finest first, all at full size.
        """
        height, width = image.shape[-2:]
        right, below = self._missing(width), self._missing(height)
        if right or below:
            image = functional.pad(image, (0, right, 0, below), mode="replicate")
        padded = image.shape[-2:]
        output = self.network(image)
        if output.dim() == 5:
            return [self._fit(level, padded, height, width) for level in output.unbind(1)]
        return self._fit(output, padded, height, width)

    def _missing(self, side: int) -> int:
        return max(-side % self.stride, 2 * self.stride - side)

    @staticmethod
    def _fit(logits: Tensor, padded: torch.Size, height: int, width: int) -> Tensor:
        if logits.shape[-2:] != padded:
            logits = functional.interpolate(
                logits, size=padded, mode="bilinear", align_corners=False
            )
        return logits[..., :height, :width]
