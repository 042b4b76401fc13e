"""How numbers are kept while a network trains: what the processor does fastest, and safely."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
SHALLOW = 2
"""Depth at which bfloat16 gradients of three-dimensional kernels are wrong on the processor."""


class _Conv3d(nn.Conv3d):
    """A convolution that takes shallow volumes in float32.

    For an input two voxels deep and a kernel three deep, the weight gradient that torch 2.13's
    oneDNN computes in bfloat16 comes from memory that nobody wrote: NaN, or a wrong number.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.shape[-3] == SHALLOW and self.kernel_size[0] > 1:
            with torch.autocast(input.device.type, enabled=False):
                return super().forward(input.float())
        return super().forward(input)


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel alone, which trains in float32.

    In bfloat16 its gradients take up to three times as long on a processor. With them in float32 a
    training step of ``efficientnet-unet`` takes two thirds of the time. A prediction does not.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the convolution of ``input`` ``(B, C, H, W)``, float32 while training."""
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class TurnedGroupNorm(nn.GroupNorm):
    """A group norm that turns what lies channels last, and turns the result back.

    PyTorch's own trains in bfloat16 and channels last several times as long as channels first;
    without it a training step of ``efficientnet-unet`` takes five sixths of the time.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return ``input`` ``(B, C, H, W)``, each group of channels of each image normalised."""
        turned = super().forward(input.contiguous())
        return turned.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Precision:
    """Device and dtype of a run's arithmetic; weights always stay float32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def place(self, model: nn.Module) -> nn.Module:
        """Return ``model`` on the device, with what makes its arithmetic right and fast.

        Networks are channels last, all channels of a pixel together, but for those with instance
        norms on a processor, which are faster with one channel after another; in three dimensions
        only in bfloat16. ``benchmarks/layouts.py`` has what the other way costs.
        """
        model = model.to(self.device)
        dimensions = max((p.dim() for p in model.parameters()), default=4)
        if self.device.type == "cpu":
            normed = any(isinstance(module, INSTANCE_NORMS) for module in model.modules())
            together = not normed or (dimensions == 5 and self.dtype == torch.float32)
            if self.dtype == torch.bfloat16:
                _mend(model, turned=together and dimensions == 4)
        else:
            together = self.dtype != torch.float32
        layout = _channels_last(dimensions) if together else torch.contiguous_format
        return model.to(memory_format=layout)  # type: ignore[call-overload]

    def move(self, images: torch.Tensor) -> torch.Tensor:
        """Return images on the device; on a processor the network lays them out."""
        if self.device.type == "cpu" or self.dtype == torch.float32:
            return images.to(self.device)
        return images.to(self.device, memory_format=_channels_last(images.dim()))

    def describe(self) -> str:
        """Return such as ``cpu bfloat16``."""
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')}"


def _mend(model: nn.Module, *, turned: bool) -> None:
    """Give layers that bfloat16 on a processor makes wrong or slow a way around it."""
    for module in model.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _Conv3d
        elif type(module) is nn.Conv2d and 1 < module.groups == module.in_channels:
            module.__class__ = DepthwiseConv2d
        elif type(module) is nn.GroupNorm and turned:
            module.__class__ = TurnedGroupNorm


def _channels_last(dimensions: int) -> torch.memory_format:
    return torch.channels_last_3d if dimensions == 5 else torch.channels_last


def choose_precision(wanted: str = "auto") -> Precision:
    """Return bfloat16 on a GPU and on processors with bfloat16 units, float32 elsewhere.

    Args:
        wanted: ``auto``, ``float32`` or ``bfloat16``. On a processor without bfloat16 units the
            latter works, but slower than float32.
    """
    if torch.cuda.is_available():
        half = torch.float32 if wanted == "float32" else torch.bfloat16
        return Precision(torch.device("cuda"), half)
    fast = wanted == "bfloat16" or (wanted == "auto" and _cpu_has_bfloat16())
    return Precision(torch.device("cpu"), torch.bfloat16 if fast else torch.float32)


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
