"""The published network: a U-Net whose encoder begins as DenseNet-121 does.

Savoia, Prezioso, Piccialli: FLAMES, Expert Systems 42(8), 2025, 10.1111/exsy.70090.
31,264,705 parameters at one input and one output channel.
"""

from __future__ import annotations

from pathlib import Path

import torch
from monai.networks.nets.densenet import _DenseBlock, _Transition
from safetensors.torch import load_file
from torch import Tensor, nn

from flames.errors import FlamesError
from flames.models.any_size import AnySize


def densenet_unet(*, weights: Path | None = None) -> nn.Module:
    """Return the network with fresh weights, or its encoder's start from an ImageNet file.

    Args:
        weights: A safetensors file of torchvision's DenseNet-121 names (``features.conv0.weight``,
            ``features.denseblock1…``, ``features.transition1…``); three-channel filters are summed.

    Raises:
        FlamesError: The file cannot be read or does not hold those arrays.
    """
    network = DenseNetUNet()
    if weights is not None:
        _load_encoder(network, weights)
    return AnySize(network, stride=16)


class DenseNetUNet(nn.Module):
    """Encoder 1/2 (dense block) → 1/4 → 1/8 → 1/16, decoder of transposed convolutions."""

    def __init__(self) -> None:
        """Build every layer; see the module's docstring for the source."""
        super().__init__()
        self.stem = nn.Conv2d(1, 64, 7, stride=2, padding=3)
        self.denseblock1 = _DenseBlock(
            spatial_dims=2, layers=6, in_channels=64, bn_size=4, growth_rate=32, dropout_prob=0.0
        )
        self.transition1 = _Transition(spatial_dims=2, in_channels=256, out_channels=128)
        self.encode2 = _block(128, 256)
        self.encode3 = _block(256, 512)
        self.bottleneck = _block(512, 1024)
        self.pool = nn.MaxPool2d(2)
        self.up3 = nn.ConvTranspose2d(1024, 512, 2, stride=2)
        self.decode3 = _block(1024, 512)
        self.up2 = nn.ConvTranspose2d(512, 256, 2, stride=2)
        self.decode2 = _block(512, 256)
        self.up1 = nn.ConvTranspose2d(256, 128, 2, stride=2)
        self.decode1 = _block(128 + 256, 128)
        self.up0 = nn.ConvTranspose2d(128, 64, 2, stride=2)
        self.decode0 = _block(64, 64)
        self.head = nn.Conv2d(64, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, 1, H, W)``; sides must be multiples of 16."""
        half = self.denseblock1(self.stem(image))
        quarter = self.encode2(self.transition1(half))
        eighth = self.encode3(self.pool(quarter))
        deep = self.bottleneck(self.pool(eighth))
        x = self.decode3(torch.cat([self.up3(deep), eighth], dim=1))
        x = self.decode2(torch.cat([self.up2(x), quarter], dim=1))
        x = self.decode1(torch.cat([self.up1(x), half], dim=1))
        return self.head(self.decode0(self.up0(x)))


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
    )


def _load_encoder(network: DenseNetUNet, path: Path) -> None:
    try:
        arrays = load_file(path)
    except Exception as error:
        raise FlamesError(
            f"cannot read ImageNet weights from {path}: {error}",
            "name a safetensors file of torchvision's densenet121",
        ) from error
    state = network.state_dict()
    try:
        state["stem.weight"] = arrays["features.conv0.weight"].sum(1, keepdim=True)
        nn.init.zeros_(state["stem.bias"])
        for name in state:
            if name.startswith(("denseblock1.", "transition1.")):
                state[name] = arrays[f"features.{name.replace('.layers.', '.')}"]
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise FlamesError(
            f"{path} does not hold DenseNet-121's first layers: {error}",
            "name a safetensors file of torchvision's densenet121",
        ) from error
