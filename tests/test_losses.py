from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flames.losses import LOSSES, dice_bce, dice_focal, over_levels, paper_loss

LOGITS = torch.tensor([[[[0.3, -1.2], [2.0, 0.0]]], [[[-3.0, 0.5], [-0.1, 1.1]]]])
LABEL = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]], [[[0.0, 0.0], [0.25, 0.0]]]])


def one_pixel_and_none() -> torch.Tensor:
    label = torch.zeros(2, 1, 2, 2)
    label[0, 0, 0, 0] = 1
    return label


def test_dice_bce_by_hand():
    # at p = ½ everywhere: 1 − (2·½ + 1) / (2 + 1 + 1) = ½ and 1 − 1 / (2 + 0 + 1) = ⅔; BCE = ln 2
    loss = dice_bce(torch.zeros(2, 1, 2, 2), one_pixel_and_none())
    assert float(loss) == pytest.approx((1 / 2 + 2 / 3) / 2 + math.log(2), rel=1e-6)


def test_dice_focal_by_hand():
    # focal at p = ½ is ¼·ln 2 for every pixel
    loss = dice_focal(torch.zeros(2, 1, 2, 2), one_pixel_and_none())
    assert float(loss) == pytest.approx((1 / 2 + 2 / 3) / 2 + 10 * math.log(2) / 4, rel=1e-6)


def test_paper_loss_agrees_with_numpy():
    logits, label = LOGITS.double().numpy().ravel(), LABEL.double().numpy().ravel()
    p = 1 / (1 + np.exp(-logits))
    dice = 1 - (2 * (p * label).sum() + 1) / (p.sum() + label.sum() + 1)
    bce = -(label * np.log(p) + (1 - label) * np.log(1 - p)).mean()
    focal = 0.8 * (1 - math.exp(-bce)) ** 2 * bce
    assert float(paper_loss(LOGITS, LABEL)) == pytest.approx(0.3 * dice + 0.7 * focal, rel=1e-5)


def test_levels_count_one_half_quarter():
    def mean(logits, label):
        return (logits - label).mean()

    levels = [torch.full((1, 1, 2, 2), value) for value in (1.0, 10.0, 100.0)]
    # (1 + 10/2 + 100/4) / (1 + 1/2 + 1/4)
    assert float(over_levels(mean, levels, torch.zeros(1, 1, 2, 2))) == pytest.approx(31 / 1.75)
    assert float(over_levels(mean, levels[1], torch.zeros(1, 1, 2, 2))) == 10


@pytest.mark.parametrize("name", sorted(LOSSES))
class TestContract:
    def test_a_right_answer_is_better_and_gradients_are_finite(self, name):
        sure = (LABEL.round() * 2 - 1) * 12
        logits = LOGITS.clone().requires_grad_()
        loss = LOSSES[name](logits, LABEL.round())
        loss.backward()
        assert loss.shape == ()
        assert float(LOSSES[name](sure, LABEL.round())) < 0.2 * float(loss.detach())
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad != 0).any()

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_extreme_logits_stay_finite(self, name, value):
        logits = torch.tensor([[[[80.0, -80.0]]]]).requires_grad_()
        loss = LOSSES[name](logits, torch.full((1, 1, 1, 2), value))
        loss.backward()
        assert math.isfinite(float(loss.detach()))
        assert torch.isfinite(logits.grad).all()

    def test_half_precision_logits_are_judged_in_float32(self, name):
        half = LOSSES[name](LOGITS.bfloat16(), LABEL)
        assert half.dtype == torch.float32
        assert float(half) == pytest.approx(float(LOSSES[name](LOGITS, LABEL)), rel=0.02)
