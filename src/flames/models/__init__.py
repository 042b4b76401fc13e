"""Networks, from one image channel to tumour logits of the same size."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from flames.config import ModelConfig, PlanConfig
from flames.models.densenet_unet import densenet_unet
from flames.models.efficientnet_unet import efficientnet_unet
from flames.models.student import student, told_student
from flames.models.unet import unet
from flames.models.unet3d import unet3d

__all__ = [
    "MODELS",
    "densenet_unet",
    "efficientnet_unet",
    "make_model",
    "student",
    "told_student",
    "unet",
    "unet3d",
]

MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "unet": lambda c: unet(deep_supervision=c.deep_supervision),
    "densenet-unet": lambda c: densenet_unet(weights=c.weights),
    "efficientnet-unet": lambda c: efficientnet_unet(pretrained=c.pretrained),
    "student": lambda _: student(),
    "told-student": lambda _: told_student(),
}


def make_model(config: ModelConfig, plan: PlanConfig | None = None) -> nn.Module:
    """Return the network of ``config``, ``(B, 1, H, W)`` → logits ``(B, 1, H, W)``.

    With a plan it works on volumes, ``(B, 1, D, H, W)``.
    """
    return MODELS[config.name](config) if plan is None else unet3d(plan)
