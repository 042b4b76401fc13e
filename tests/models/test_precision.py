"""What arithmetic in bfloat16 must not break."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flames.config import ModelConfig
from flames.models import make_model
from flames.models.precision import choose_precision

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="about the processor")


def _leave_nan_in_freed_memory():
    for size in (64, 256, 1024, 4096, 16384, 65536):
        [torch.full((size,), float("nan")) for _ in range(4)]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beside", [nn.Identity(), nn.InstanceNorm3d(1)])  # see `place`
def test_gradients_of_shallow_volumes_are_those_of_float32(depth, seed, beside):
    torch.manual_seed(seed)
    plain = nn.Conv3d(8, 16, 3, padding=1)
    fast = nn.Conv3d(8, 16, 3, padding=1)
    fast.load_state_dict(plain.state_dict())
    precision = choose_precision("bfloat16")
    fast = precision.place(nn.Sequential(fast, beside))[0]
    volume = torch.randn(2, 8, depth, 6, 6)
    wanted = plain(volume)
    pull = torch.randn_like(wanted)
    wanted.backward(pull)
    _leave_nan_in_freed_memory()
    with precision.autocast():
        found = fast(precision.move(volume))
    found.backward(pull.to(found.dtype))
    largest = float(plain.weight.grad.abs().max())
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=0, atol=0.03 * largest)


def test_a_placed_network_keeps_its_names():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, 1))
    names = list(network.state_dict())
    assert list(choose_precision("bfloat16").place(network).state_dict()) == names


@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("name", "together"), [("unet", False), ("student", False), ("efficientnet-unet", True)]
)
def test_a_network_works_in_the_layout_that_is_quick_for_it(wanted, name, together):
    seen = []

    def note(_module, _inputs, output):
        if min(output.shape[1:]) > 1:  # else both layouts are one
            last = output.is_contiguous(memory_format=torch.channels_last)
            seen.append("last" if last else "first" if output.is_contiguous() else "neither")

    precision = choose_precision(wanted)
    network = precision.place(make_model(ModelConfig(name=name, pretrained=False)))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.InstanceNorm2d):
            module.register_forward_hook(note)
    with torch.inference_mode(), precision.autocast():
        network.eval()(precision.move(torch.randn(2, 1, 64, 64)))
    assert set(seen) == {"last" if together else "first"}


@pytest.mark.parametrize(("wanted", "together"), [("bfloat16", False), ("float32", True)])
def test_volumes_lie_as_is_quick_for_them(wanted, together):
    network = nn.Sequential(nn.Conv3d(2, 4, 3), nn.InstanceNorm3d(4))
    kernels = choose_precision(wanted).place(network)[0].weight
    assert kernels.is_contiguous(memory_format=torch.channels_last_3d) == together
    assert kernels.is_contiguous() != together


def test_a_depthwise_convolution_trains_in_float32_and_predicts_in_bfloat16():
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 5, padding=2, groups=8)
    fast = nn.Conv2d(8, 8, 5, padding=2, groups=8)
    fast.load_state_dict(plain.state_dict())
    precision = choose_precision("bfloat16")
    fast = precision.place(nn.Sequential(fast))[0]
    images = torch.randn(4, 8, 12, 12)
    wanted = plain(images)
    pull = torch.randn_like(wanted)
    wanted.backward(pull)
    with precision.autocast():
        found = fast.train()(images)
    found.backward(pull)
    assert found.dtype == fast.weight.grad.dtype == torch.float32
    # Added up in another order; bfloat16 would be off by 0.3.
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, atol=1e-4, rtol=1e-4)
    with torch.inference_mode(), precision.autocast():
        assert fast.eval()(images).dtype == torch.bfloat16


def test_only_convolutions_of_each_channel_alone_train_in_float32():
    precision = choose_precision("bfloat16")
    layers = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3)
    network = precision.place(nn.Sequential(*layers))
    with precision.autocast():
        assert network.train()(torch.randn(1, 1, 9, 9)).dtype == torch.bfloat16


def test_a_group_norm_gives_the_same_whichever_way_its_input_lies():
    torch.manual_seed(0)
    precision = choose_precision("bfloat16")
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8))
    plain = nn.GroupNorm(2, 8)
    quick = precision.place(network)[1]
    assert type(quick) is not nn.GroupNorm
    images = torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    again = images.detach().clone().requires_grad_()
    pull = torch.randn(2, 8, 5, 5)
    found, wanted = quick(images), plain(again)
    found.backward(pull)
    wanted.backward(pull)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(images.grad, again.grad)
    torch.testing.assert_close(quick.weight.grad, plain.weight.grad)
