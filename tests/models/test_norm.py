"""Instance norm by way of group norm computes the same, in prediction and in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flames.config import PlanConfig
from flames.models import student, unet
from flames.models.norm import QuickInstanceNorm2d, QuickInstanceNorm3d
from flames.models.unet3d import unet3d

KINDS = [
    (QuickInstanceNorm2d, nn.InstanceNorm2d, (4, 5, 12, 9)),
    (QuickInstanceNorm3d, nn.InstanceNorm3d, (2, 5, 4, 6, 7)),
]
PLAN = PlanConfig(
    spacing=(2.0, 1.0, 1.0),
    patch=(8, 16, 16),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
)


@pytest.mark.parametrize(("kind", "like", "shape"), KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_numbers_and_gradients_are_those_of_instance_norm(kind, like, shape, training):
    torch.manual_seed(0)
    quick, plain = kind(5, affine=True).train(training), like(5, affine=True).train(training)
    nn.init.normal_(quick.weight)
    nn.init.normal_(quick.bias)
    plain.load_state_dict(quick.state_dict())
    images = 3 + 2 * torch.randn(shape)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    found, expected = quick(ours), plain(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    pull = torch.randn(shape)
    found.backward(pull)
    expected.backward(pull)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quick.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quick.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_pytorchs_instance_norm_is_not_called(monkeypatch, training):
    def refuse(*_, **__):
        raise AssertionError("instance norm was called")

    monkeypatch.setattr(torch.nn.functional, "instance_norm", refuse)
    QuickInstanceNorm2d(2, affine=True).train(training)(torch.randn(1, 2, 4, 4))
    QuickInstanceNorm3d(2, affine=True).train(training)(torch.randn(1, 2, 2, 4, 4))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (unet, QuickInstanceNorm2d),
        (student, QuickInstanceNorm2d),
        (lambda: unet3d(PLAN), QuickInstanceNorm3d),
    ],
)
def test_networks_use_it(make, kind):
    norms = (nn.InstanceNorm2d, nn.InstanceNorm3d)
    assert {type(module) for module in make().modules() if isinstance(module, norms)} == {kind}
