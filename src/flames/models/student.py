"""The student: a U-Net small enough to learn from larger ones, told the modality or not."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Norm
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.nn import functional

from flames.config import MODALITIES
from flames.models.any_size import AnySize
from flames.models.norm import QUICK_INSTANCE, QuickInstanceNorm2d
from flames.models.unet import RARE

FILTERS = (16, 32, 64, 96)
TOLD_INSTANCE = "FLAMES_TOLD_INSTANCE"
"""Name of `ToldInstanceNorm2d` among MONAI's norms."""


class HalvedUNet(DynUNet):
    """MONAI's DynUNet of an image of half the size, each pixel the mean of four."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images ``(B, 1, H, W)`` at a quarter of their size."""
        return super().forward(functional.avg_pool2d(x, 2))


def student(*, norm: str = QUICK_INSTANCE) -> nn.Module:
    """Return a `HalvedUNet` with instance norm, from a quarter of the image's resolution down.

    About a fifth of the light U-Net's parameters. The image is halved, and its first convolution
    halves it again, which on a processor is what makes it fast; its logits are enlarged by four.
    """
    depth = len(FILTERS)
    network = HalvedUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        kernel_size=[3] * depth,
        strides=[2] * depth,
        upsample_kernel_size=[2] * (depth - 1),
        filters=FILTERS,
        norm_name=(norm, {"affine": True}),
    )
    nn.init.constant_(network.output_block.conv.conv.bias, RARE)
    return AnySize(network, stride=2 * 2**depth)


class ToldInstanceNorm2d(QuickInstanceNorm2d):
    """Instance norm of images of one modality, which has a scale and a shift of its own.

    Behind the norm, because before it whatever is the same all over an image is taken away.

    V. Dumoulin, J. Shlens, M. Kudlur: A Learned Representation for Artistic Style, ICLR 2017,
    "conditional instance normalization".
    """

    def __init__(self, num_features: int, affine: bool = True) -> None:
        """Take the channels; ``affine`` is there for MONAI and must be true."""
        super().__init__(num_features, affine=affine)
        self.scales = nn.Parameter(torch.zeros(len(MODALITIES), num_features))
        self.shifts = nn.Parameter(torch.zeros(len(MODALITIES), num_features))
        self.said: int | None = None
        """Which of `MODALITIES` it is; None says nothing."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` ``(B, C, H, W)``, each channel of each image normalised."""
        if self.said is None:
            return super().forward(input)
        weight = self.weight + self.scales[self.said]
        bias = self.bias + self.shifts[self.said]
        return functional.group_norm(input, self.num_features, weight, bias, self.eps)


Norm.add_factory_callable(TOLD_INSTANCE, lambda _: ToldInstanceNorm2d)


class Told(nn.Module):
    """A network that is told the modality of its images, in every norm."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap ``network``; what in it is a `ToldInstanceNorm2d` listens."""
        super().__init__()
        self.network = network
        self.modality: str | None = None
        """What images are from here on; None says nothing."""
        self._norms = [m for m in network.modules() if isinstance(m, ToldInstanceNorm2d)]

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of images ``(B, 1, H, W)``, or of images with channels that say it.

        Images of one call are of one modality; see `with_modality`.
        """
        if image.shape[1] == 1:
            said = MODALITIES.index(self.modality) if self.modality in MODALITIES else None
        else:
            planes = image[0, 1:, 0, 0]
            said = int(planes.argmax()) if planes.any() else None
            image = image[:, :1]
        for norm in self._norms:
            norm.said = said
        return self.network(image)


def told_student() -> nn.Module:
    """Return the student that is told the modality."""
    return Told(student(norm=TOLD_INSTANCE))


def of_one_modality(network: Told, modality: str) -> nn.Module:
    """Return a student that computes for every image what ``network`` does for this modality."""
    row = MODALITIES.index(modality)
    arrays = network.network.state_dict()
    kept = {}
    for name, array in arrays.items():
        norm, _, last = name.rpartition(".")
        moved = {"weight": f"{norm}.scales", "bias": f"{norm}.shifts"}.get(last)
        if last not in ("scales", "shifts"):
            kept[name] = array + arrays[moved][row] if moved in arrays else array
    plain = student()
    plain.load_state_dict(kept)
    return plain.eval()


def with_modality(image: Tensor, modality: str | None) -> Tensor:
    """Return images ``(B, 1, H, W)`` with a channel of ones for their modality, zeros elsewhere."""
    said = torch.tensor([float(modality == name) for name in MODALITIES])
    planes = said.to(image).view(1, -1, 1, 1).expand(len(image), -1, *image.shape[2:])
    return torch.cat([image, planes], dim=1)


def tell(network: nn.Module, modality: str) -> None:
    """Say what the next images are, to a network that listens; others are left as they are."""
    if isinstance(network, Told):
        network.modality = modality
