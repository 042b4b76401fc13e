"""Instance norm by way of group norm computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flames.models import student, unet
from flames.models.norm import QuickInstanceNorm2d


def test_prediction_is_that_of_instance_norm():
    quick, plain = QuickInstanceNorm2d(5, affine=True), nn.InstanceNorm2d(5, affine=True)
    nn.init.normal_(quick.weight)
    nn.init.normal_(quick.bias)
    plain.load_state_dict(quick.state_dict())
    images = 3 + 2 * torch.randn(4, 5, 12, 9)
    expected = plain(images)
    assert torch.equal(quick(images), expected)  # in training: to the digit
    torch.testing.assert_close(quick.eval()(images), expected, rtol=1e-5, atol=1e-5)


def test_prediction_goes_without_pytorchs_instance_norm(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("instance norm was called")

    monkeypatch.setattr(torch.nn.functional, "instance_norm", refuse)
    norm = QuickInstanceNorm2d(2, affine=True)
    norm.eval()(torch.randn(1, 2, 4, 4))
    with pytest.raises(AssertionError, match="was called"):
        norm.train()(torch.randn(1, 2, 4, 4))


@pytest.mark.parametrize("make", [unet, student])
def test_networks_use_it(make):
    kinds = {type(module) for module in make().modules() if isinstance(module, nn.InstanceNorm2d)}
    assert kinds == {QuickInstanceNorm2d}
