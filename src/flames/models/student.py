"""The student: a U-Net small enough to learn from larger ones, told the modality or not."""

from __future__ import annotations

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from flames.models.any_size import AnySize
from flames.models.norm import QUICK_INSTANCE
from flames.models.unet import RARE

FILTERS = (16, 32, 64, 96)
MODALITIES = ("US", "MR", "CT")


def student(*, in_channels: int = 1) -> nn.Module:
    """Return MONAI's DynUNet with instance norm, from a quarter of the image's resolution down.

    About a fifth of the light U-Net's parameters. Its first convolution strides by four, which on a
    processor is what makes it fast, and its logits are enlarged by four.
    """
    depth = len(FILTERS)
    network = DynUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=1,
        kernel_size=[3] * depth,
        strides=[4, *[2] * (depth - 1)],
        upsample_kernel_size=[2] * (depth - 1),
        filters=FILTERS,
        norm_name=(QUICK_INSTANCE, {"affine": True}),
    )
    nn.init.constant_(network.output_block.conv.conv.bias, RARE)
    return AnySize(network, stride=4 * 2 ** (depth - 1))


class Told(nn.Module):
    """A network that is told the modality of its images, as one constant channel for each."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap ``network``, which takes an image and a channel for each modality."""
        super().__init__()
        self.network = network
        self.modality: str | None = None
        """What images are from here on; None says nothing."""

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of images ``(B, 1, H, W)``, or of images with their channels already."""
        if image.shape[1] == 1:
            image = with_modality(image, self.modality)
        return self.network(image)


def told_student() -> nn.Module:
    """Return the student that is told the modality."""
    return Told(student(in_channels=1 + len(MODALITIES)))


def with_modality(image: Tensor, modality: str | None) -> Tensor:
    """Return images ``(B, 1, H, W)`` with a channel of ones for their modality, zeros elsewhere."""
    said = torch.tensor([float(modality == name) for name in MODALITIES])
    planes = said.to(image).view(1, -1, 1, 1).expand(len(image), -1, *image.shape[2:])
    return torch.cat([image, planes], dim=1)


def tell(network: nn.Module, modality: str) -> None:
    """Say what the next images are, to a network that listens; others are left as they are."""
    if isinstance(network, Told):
        network.modality = modality
