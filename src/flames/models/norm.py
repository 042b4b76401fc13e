"""Instance norm that costs less: group norm with one channel a group.

Both compute the same but for rounding, and read the same weights. PyTorch's instance norm copies
its weights for every image first, a seventh of a step's time on a processor. There its group norm
is quick only for images whose channels lie one after another, see
`flames.models.precision.Precision.place`.
"""

from __future__ import annotations

from monai.networks.layers.factories import Norm
from torch import Tensor, nn
from torch.nn import functional

QUICK_INSTANCE = "FLAMES_QUICK_INSTANCE"
"""Its name among MONAI's norms."""


class QuickInstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm of images."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` ``(B, C, H, W)``, each channel of each image normalised."""
        return functional.group_norm(input, self.num_features, self.weight, self.bias, self.eps)


class QuickInstanceNorm3d(nn.InstanceNorm3d):
    """Instance norm of volumes."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` ``(B, C, D, H, W)``, each channel of each volume normalised."""
        return functional.group_norm(input, self.num_features, self.weight, self.bias, self.eps)


QUICK = {2: QuickInstanceNorm2d, 3: QuickInstanceNorm3d}
Norm.add_factory_callable(QUICK_INSTANCE, lambda dimensions: QUICK[dimensions])
