"""Differentiable losses on logits ``(B, 1, …)``, of images or volumes, against labels in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def dice_bce(logits: Tensor, label: Tensor) -> Tensor:
    """Return Dice per case, averaged over the batch, plus binary cross-entropy per pixel.

    Dice is smoothed by one pixel, so a case without tumour pulls gently towards silence.
    """
    return _dice(logits.float(), label) + functional.binary_cross_entropy_with_logits(
        logits.float(), label
    )


def dice_focal(logits: Tensor, label: Tensor) -> Tensor:
    """Return Dice per case plus ten times focal loss per pixel, γ = 2.

    Focal loss is small beside Dice. Lin et al., ICCV 2017, equation 4.
    """
    return _dice(logits.float(), label) + 10 * _focal(logits.float(), label)


def paper_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the published loss ``0.3·Dice + 0.7·focal``.

    Dice over the flattened batch with smoothing 1; focal ``0.8·(1 − e^−BCE)²·BCE`` on the mean
    BCE of the batch. Savoia et al., Expert Systems 42(8), 2025.
    """
    logits = logits.float()
    probs = torch.sigmoid(logits)
    overlap = (probs * label).sum()
    dice = 1 - (2 * overlap + 1) / (probs.sum() + label.sum() + 1)
    bce = functional.binary_cross_entropy_with_logits(logits, label)
    focal = 0.8 * (1 - torch.exp(-bce)) ** 2 * bce
    return 0.3 * dice + 0.7 * focal


def distillation(segmentation: Loss, *, share: float, temperature: float) -> Loss:
    """Return ``(1 − λ)·segmentation(S, y) + λ·τ²·KL(σ(T/τ) ‖ σ(S/τ))``, per pixel, on logits.

    Its target is ``(B, 2, H, W)``: the label y, then the teacher's logits T. λ = 1 needs no label,
    λ = 0 is ``segmentation``; where both logits agree the second term is 0. Hinton, Vinyals and
    Dean, arXiv 1503.02531, with a Bernoulli for each pixel.

    Args:
        segmentation: Loss on the label.
        share: λ, the teacher's part.
        temperature: τ; higher shows more of what the teacher thinks less likely.
    """

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        label, teacher = target[:, :1], target[:, 1:]
        total = torch.zeros((), device=logits.device)
        if share < 1:
            total = total + (1 - share) * segmentation(logits, label)
        if share > 0:
            apart = bernoulli_divergence(teacher / temperature, logits.float() / temperature)
            total = total + share * temperature**2 * apart.mean()
        return total

    return loss


def bernoulli_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return ``KL(Bernoulli(σ(teacher)) ‖ Bernoulli(σ(student)))`` for each element, at least 0."""
    probs = torch.sigmoid(teacher)
    cross = functional.binary_cross_entropy_with_logits(student, probs, reduction="none")
    entropy = functional.binary_cross_entropy_with_logits(teacher, probs, reduction="none")
    return cross - entropy


def over_levels(loss: Loss, outputs: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
    """Return ``loss``, or its mean over deep supervision's levels weighted 1, ½, ¼, …"""
    if isinstance(outputs, Tensor):
        return loss(outputs, label)
    weights = [0.5**level for level in range(len(outputs))]
    terms = [w * loss(output, label) for w, output in zip(weights, outputs, strict=True)]
    return torch.stack(terms).sum() / sum(weights)


LOSSES: dict[str, Loss] = {"dice-bce": dice_bce, "dice-focal": dice_focal, "paper": paper_loss}

_dice = DiceLoss(sigmoid=True, batch=False, smooth_nr=1.0, smooth_dr=1.0)
_focal = FocalLoss(gamma=2.0)
