"""The default network in three dimensions: its levels are those of a modality's plan."""

from __future__ import annotations

from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.nn import functional

from flames.config import PlanConfig
from flames.models.norm import QUICK_INSTANCE
from flames.models.unet import FILTERS, RARE

WIDEST = 320
"""Most filters of a level, however deep: as nnU-Net has it."""


class _FullSize(nn.Module):
    """Enlarges the logits of a network whose first convolution strides."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> Tensor:
        logits: Tensor = self.network(volume)
        if logits.shape[-3:] == volume.shape[-3:]:
            return logits
        return functional.interpolate(
            logits, size=volume.shape[-3:], mode="trilinear", align_corners=False
        )


def unet3d(plan: PlanConfig) -> nn.Module:
    """Return MONAI's DynUNet, ``(B, 1, D, H, W)`` → logits of that shape.

    Sides must be multiples of the plan's factors. Where slices are thick the plan's first kernels
    and strides stay in a slice, as nnU-Net does. Isensee et al., Nature Methods 18, 2021.
    """
    filters = [min(FILTERS[0] * 2**level, WIDEST) for level in range(len(plan.strides))]
    network = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        kernel_size=plan.kernels,
        strides=plan.strides,
        upsample_kernel_size=plan.strides[1:],
        filters=filters,
        norm_name=(QUICK_INSTANCE, {"affine": True}),
    )
    nn.init.constant_(network.output_block.conv.conv.bias, RARE)
    return _FullSize(network)
